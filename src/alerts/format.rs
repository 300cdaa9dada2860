//! An event as each kind of receiver wants it. Pure.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::event::{Event, EventKind};
use crate::config::NotifyFormat;
use crate::model::{AlertKey, Severity};

/// One request of an event. Neither it nor its [`Context`] has a `Debug`: they hold PagerDuty's key.
pub(super) struct Message {
    /// Appended to the receiver's URL.
    pub path: &'static str,
    pub json: String,
}

/// An Alertmanager ends an alert after this time, unless it is sent again.
const LASTS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// So much an Alertmanager's clock may be behind.
const CLOCKS: SignedDuration = SignedDuration::from_mins(5);

/// PagerDuty takes no longer summary, and no longer deduplication key.
const SUMMARY: usize = 1024;
const DEDUP_KEY: usize = 255;

/// Whose event it is, and to whom it goes.
pub(super) struct Context<'a> {
    pub cluster: &'a str,
    pub format: NotifyFormat,
    pub minimum: Severity,
    /// PagerDuty's routing key.
    pub key: Option<&'a str>,
}

/// The requests of an event, in their order; none where the receiver has no use for it. To send all of them again changes nothing.
pub(super) fn messages(event: &Event, id: &str, context: &Context<'_>) -> Vec<Message> {
    let (path, all) = match context.format {
        NotifyFormat::Json => ("", vec![as_json(event, id, context)]),
        NotifyFormat::Slack => (
            "",
            vec![json!({ "text": sentence(event, context.cluster) })],
        ),
        NotifyFormat::PagerDuty => ("", pagerduty(event, context)),
        NotifyFormat::Alertmanager => {
            let alerts = alertmanager(event, context);
            ("/api/v2/alerts", alerts.into_iter().collect())
        }
    };
    let message = |json: Value| Message {
        path,
        json: json.to_string(),
    };
    all.into_iter().map(message).collect()
}

/// Whether the alert is over for a receiver with this `minimum` severity.
fn is_over(event: &Event, minimum: Severity) -> bool {
    match event.kind {
        EventKind::Resolved => true,
        EventKind::Test => false,
        _ => event.alert.severity < minimum,
    }
}

/// The severities under which a receiver may still know the alert, and no longer does after the event.
///
/// A node that resolves an alert may not know each severity that the other one reported while Redis was away, nor the receiver's
/// minimum of then.
fn replaced(event: &Event) -> impl Iterator<Item = Severity> {
    const ALL: [Severity; 3] = [Severity::Unknown, Severity::Warning, Severity::Critical];
    let (now, from, kind) = (event.alert.severity, event.from, event.kind);
    ALL.into_iter().filter(move |one| {
        let known = from == Some(*one) || kind == EventKind::Resolved;
        known && *one != now
    })
}

/// The event as Redis has it, with the cluster's name and the event's own.
fn as_json(event: &Event, id: &str, context: &Context<'_>) -> Value {
    let mut json = serde_json::to_value(event).expect("an event has text keys only");
    json["cluster"] = context.cluster.into();
    json["id"] = id.into();
    json
}

fn sentence(event: &Event, cluster: &str) -> String {
    let alert = &event.alert;
    let severity = match event.from {
        Some(from) => format!("{}, was {}", alert.severity.word(), from.word()),
        None => alert.severity.word().to_owned(),
    };
    let marks = match alert.marks.to_string() {
        marks if marks.is_empty() => marks,
        marks => format!(" [{marks}]"),
    };
    let runbook = alert.runbook.as_ref();
    let runbook = runbook.map_or_else(String::new, |runbook| format!(" ({runbook})"));
    // What others could have written must not become a mention or a link.
    let text = format!(
        "{cluster}: {} {} ({severity}): {}{runbook}{marks}",
        event.kind.word(),
        alert.key(),
        alert.reason
    );
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Events API v2. Each severity of an alert is an incident of its own: PagerDuty adds a trigger to an incident that stands or is
/// acknowledged without a page. The deduplication key names both, so a second attempt is no second incident.
fn pagerduty(event: &Event, context: &Context<'_>) -> Vec<Value> {
    let alert = &event.alert;
    let request = |action: &str, severity: Severity| {
        json!({
            "routing_key": context.key.unwrap_or_default(),
            "event_action": action,
            "dedup_key": dedup_key(&alert.key(), severity, context.cluster),
        })
    };
    let mut requests: Vec<Value> = replaced(event)
        .map(|severity| request("resolve", severity))
        .collect();
    let action = match event.kind {
        _ if is_over(event, context.minimum) => "resolve",
        // It is triggered again, and pages, when the silence ends.
        EventKind::Silenced => "resolve",
        EventKind::Acknowledged => "acknowledge",
        _ => "trigger",
    };
    let mut last = request(action, alert.severity);
    if action == "trigger" {
        let summary = format!("{}: {}: {}", context.cluster, alert.key(), alert.reason);
        last["payload"] = json!({
            "summary": summary.chars().take(SUMMARY).collect::<String>(),
            "source": alert.node,
            "severity": match alert.severity {
                Severity::Critical => "critical",
                Severity::Warning => "warning",
                Severity::Unknown => "error",
            },
            "timestamp": event.at,
            "component": alert.object,
            "group": context.cluster,
            "class": alert.check,
            "custom_details": event,
        });
    }
    requests.push(last);
    requests
}

/// `xdb/{cluster}/{check}/{node}/{object}/{severity}`; of a longer one a digest stands for what is too much.
fn dedup_key(key: &AlertKey, severity: Severity, cluster: &str) -> String {
    let name = format!("xdb/{cluster}/{key}");
    let severity = severity.word();
    if name.len() + severity.len() < DEDUP_KEY {
        return format!("{name}/{severity}");
    }
    let digest = Sha256::digest(name.as_bytes());
    let digest = hex::encode(&digest[..16]);
    let mut kept = DEDUP_KEY - digest.len() - severity.len() - 2;
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    format!("{}/{digest}/{severity}", &name[..kept])
}

/// An Alertmanager knows an alert by its labels, and the severity is one of them: a change ends the alert of the one before.
fn alertmanager(event: &Event, context: &Context<'_>) -> Option<Value> {
    let at = event.at;
    let severity = event.alert.severity;
    // An Alertmanager whose clock is behind would take a time that it has not reached for one that an alert lasts until.
    let past = at.saturating_sub(CLOCKS).unwrap_or(Timestamp::MIN);
    let ended = |severity| entry(event, severity, context.cluster, past);
    let later = at.saturating_add(LASTS).unwrap_or(Timestamp::MAX);
    let mut alerts: Vec<Value> = replaced(event).map(ended).collect();
    match event.kind {
        // It has silences of its own.
        EventKind::Silenced | EventKind::Acknowledged => return None,
        EventKind::Test => alerts.push(ended(severity)),
        _ if is_over(event, context.minimum) => alerts.push(ended(severity)),
        _ => alerts.push(entry(event, severity, context.cluster, later)),
    }
    Some(json!(alerts))
}

fn entry(event: &Event, severity: Severity, cluster: &str, ends_at: Timestamp) -> Value {
    let alert = &event.alert;
    json!({
        "labels": {
            "alertname": alert.check,
            "cluster": cluster,
            "node": alert.node,
            "object": alert.object,
            "severity": severity.word(),
        },
        "annotations": {
            "summary": alert.reason,
            "runbook": alert.runbook.clone().unwrap_or_default(),
            "reporter": alert.reporter,
        },
        "startsAt": alert.since.min(ends_at),
        "endsAt": ends_at,
    })
}

#[cfg(test)]
mod tests {
    use super::super::event::Alert;
    use super::*;
    use crate::model::{AlertKey, AlertState, Notice};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_778_666_069 + second).unwrap()
    }

    fn event(kind: EventKind, severity: Severity, from: Option<Severity>) -> Event {
        let key = AlertKey::parse("replication-lag/cluster/db2").unwrap();
        let state = AlertState {
            severity,
            since: at(0),
            raised_at: Some(at(30)),
            reason: "db2 is <@all> behind".to_owned(),
            value: Some(90.5),
            threshold: Some(60.0),
            runbook: Some("runbooks/replication-lag.md".to_owned()),
            notice: Notice::known(severity, None),
        };
        Event {
            kind,
            at: at(60),
            from,
            alert: Alert::new(&key, &state, "db1"),
        }
    }

    /// All requests of the event.
    fn sent(event: &Event, format: NotifyFormat, minimum: Severity) -> Vec<Value> {
        let context = Context {
            cluster: "main",
            format,
            minimum,
            key: Some("R0UT1NG"),
        };
        let messages = messages(event, "a1b2", &context).into_iter();
        messages
            .map(|message| serde_json::from_str(&message.json).unwrap())
            .collect()
    }

    /// As "action severity", by the deduplication key.
    fn incidents(event: &Event, minimum: Severity) -> Vec<String> {
        let requests = sent(event, NotifyFormat::PagerDuty, minimum).into_iter();
        let shown = |request: Value| {
            let key = request["dedup_key"].as_str().unwrap();
            let severity = key.strip_prefix("xdb/main/replication-lag/cluster/db2/");
            assert_eq!(
                request["event_action"] == "trigger",
                !request["payload"].is_null()
            );
            format!(
                "{} {}",
                request["event_action"].as_str().unwrap(),
                severity.unwrap()
            )
        };
        requests.map(shown).collect()
    }

    /// As "severity ends" or "severity stands", by the labels.
    fn labels(event: &Event, minimum: Severity) -> Option<Vec<String>> {
        let request = sent(event, NotifyFormat::Alertmanager, minimum).pop()?;
        let shown = |alert: &Value| {
            let severity = alert["labels"]["severity"].as_str().unwrap();
            let ends = alert["endsAt"] == json!(at(60) - CLOCKS);
            format!("{severity} {}", if ends { "ends" } else { "stands" })
        };
        Some(request.as_array()?.iter().map(shown).collect())
    }

    #[test]
    fn each_format_tells_what_happened() {
        use Severity::{Critical, Unknown};
        let raised = event(EventKind::Raised, Critical, None);
        let one = |format| {
            let mut sent = sent(&raised, format, Unknown);
            assert_eq!(sent.len(), 1, "{sent:?}");
            sent.remove(0)
        };
        let json = one(NotifyFormat::Json);
        assert_eq!(
            (
                &json["kind"],
                &json["cluster"],
                &json["id"],
                &json["object"]
            ),
            (
                &json!("raised"),
                &json!("main"),
                &json!("a1b2"),
                &json!("db2")
            )
        );
        assert_eq!(
            one(NotifyFormat::Slack),
            json!({ "text": "main: raised replication-lag/cluster/db2 (critical): db2 is &lt;@all&gt; behind (runbooks/replication-lag.md)" })
        );
        let trigger = one(NotifyFormat::PagerDuty);
        assert_eq!(trigger["routing_key"], "R0UT1NG");
        assert_eq!(
            trigger["dedup_key"],
            "xdb/main/replication-lag/cluster/db2/critical"
        );
        assert_eq!(trigger["payload"]["severity"], "critical");
        let alerts = one(NotifyFormat::Alertmanager);
        assert_eq!(alerts[0]["labels"]["alertname"], "replication-lag");
        assert_eq!(alerts[0]["startsAt"], json!(at(0)));
        assert_eq!(alerts[0]["endsAt"], json!(at(60) + LASTS));
    }

    #[test]
    fn each_event_ends_what_it_replaces_and_what_falls_below_the_minimum() {
        use Severity::{Critical, Unknown, Warning};
        for (kind, severity, from, minimum, incident, label) in [
            (
                EventKind::Escalated,
                Critical,
                Some(Warning),
                Unknown,
                &["resolve warning", "trigger critical"][..],
                Some(&["warning ends", "critical stands"][..]),
            ),
            (
                EventKind::Lowered,
                Warning,
                Some(Critical),
                Warning,
                &["resolve critical", "trigger warning"],
                Some(&["critical ends", "warning stands"]),
            ),
            (
                EventKind::Lowered,
                Warning,
                Some(Critical),
                Critical,
                &["resolve critical", "resolve warning"],
                Some(&["critical ends", "warning ends"]),
            ),
            (
                EventKind::Resolved,
                Warning,
                Some(Critical),
                Critical,
                &["resolve unknown", "resolve critical", "resolve warning"],
                Some(&["unknown ends", "critical ends", "warning ends"]),
            ),
            (
                EventKind::Resolved,
                Warning,
                None,
                Unknown,
                &["resolve unknown", "resolve critical", "resolve warning"],
                Some(&["unknown ends", "critical ends", "warning ends"]),
            ),
            (
                EventKind::Raised,
                Warning,
                Some(Critical),
                Unknown,
                &["resolve critical", "trigger warning"],
                Some(&["critical ends", "warning stands"]),
            ),
            (
                EventKind::Silenced,
                Warning,
                None,
                Unknown,
                &["resolve warning"],
                None,
            ),
            (
                EventKind::Acknowledged,
                Warning,
                None,
                Unknown,
                &["acknowledge warning"],
                None,
            ),
            (
                EventKind::Test,
                Warning,
                None,
                Critical,
                &["trigger warning"],
                Some(&["warning ends"]),
            ),
        ] {
            let event = event(kind, severity, from);
            assert_eq!(incidents(&event, minimum), incident, "{kind:?} {from:?}");
            let expected = label.map(<[&str]>::to_vec);
            let labels = labels(&event, minimum);
            let labels: Option<Vec<&str>> = labels
                .as_ref()
                .map(|labels| labels.iter().map(String::as_str).collect());
            assert_eq!(labels, expected, "{kind:?} {from:?}");
        }
    }

    #[test]
    fn a_key_that_pagerduty_would_refuse_is_shortened_and_stays_its_own() {
        let key = |object: &str| AlertKey::parse(&format!("disk/db1/{object}")).unwrap();
        let short = dedup_key(&key("/var"), Severity::Warning, "main");
        assert_eq!(short, "xdb/main/disk/db1//var/warning");
        let of = |last: &str| {
            let long = format!("{}{last}", "ä".repeat(200));
            dedup_key(&key(&long), Severity::Critical, "main")
        };
        assert!(of("a").len() <= DEDUP_KEY, "{}", of("a").len());
        assert!(of("a").ends_with("/critical"));
        assert_ne!(of("a"), of("b"));
        assert_eq!(of("a"), of("a"));
    }
}
