//! An event as each kind of receiver wants it. Pure.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::event::{Event, Kind};
use crate::config::NotifyFormat;
use crate::model::Severity;

/// What is sent for an event.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Message {
    /// Appended to the receiver's URL.
    pub path: &'static str,
    pub json: String,
}

/// An Alertmanager ends an alert after this time, unless it is sent again.
const LASTS: SignedDuration = SignedDuration::from_hours(30 * 24);

/// PagerDuty takes no longer summary.
const SUMMARY: usize = 1024;

/// Whose event it is, and to whom it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub cluster: &'a str,
    pub format: NotifyFormat,
    pub minimum: Severity,
    /// PagerDuty's routing key.
    pub key: Option<&'a str>,
}

/// `None` where the receiver has no use for the event.
pub(super) fn message(event: &Event, id: &str, context: &Context<'_>) -> Option<Message> {
    let (path, json) = match context.format {
        NotifyFormat::Json => ("", as_json(event, id, context)),
        NotifyFormat::Slack => ("", json!({ "text": sentence(event, context.cluster) })),
        NotifyFormat::PagerDuty => ("", pagerduty(event, context)),
        NotifyFormat::Alertmanager => ("/api/v2/alerts", alertmanager(event, context)?),
    };
    let json = json.to_string();
    Some(Message { path, json })
}

/// Whether the alert is over for a receiver with this `minimum` severity.
fn is_over(event: &Event, minimum: Severity) -> bool {
    event.kind == Kind::Resolved || event.kind == Kind::Lowered && event.alert.severity < minimum
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

/// Events API v2. The key of the alert is its deduplication key, so a second attempt is no second incident.
fn pagerduty(event: &Event, context: &Context<'_>) -> Value {
    let alert = &event.alert;
    let action = match event.kind {
        _ if is_over(event, context.minimum) => "resolve",
        Kind::Acknowledged | Kind::Silenced => "acknowledge",
        _ => "trigger",
    };
    let mut json = json!({
        "routing_key": context.key.unwrap_or_default(),
        "event_action": action,
        "dedup_key": format!("xdb/{}/{}", context.cluster, alert.key()),
    });
    if action == "trigger" {
        let summary = format!("{}: {}: {}", context.cluster, alert.key(), alert.reason);
        json["payload"] = json!({
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
    json
}

/// An Alertmanager knows an alert by its labels, and the severity is one of them: a change ends the alert of the one before.
fn alertmanager(event: &Event, context: &Context<'_>) -> Option<Value> {
    let at = event.at;
    let now = |severity| entry(event, severity, context.cluster, at);
    let later = at.saturating_add(LASTS).unwrap_or(Timestamp::MAX);
    let stands = || entry(event, event.alert.severity, context.cluster, later);
    Some(match (event.kind, event.from) {
        // It has silences of its own.
        (Kind::Silenced | Kind::Acknowledged, _) => return None,
        (Kind::Resolved | Kind::Test, _) => json!([now(event.alert.severity)]),
        (_, Some(from)) if is_over(event, context.minimum) => json!([now(from)]),
        (_, Some(from)) => json!([now(from), stands()]),
        (_, None) => json!([stands()]),
    })
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

    fn event(kind: Kind, severity: Severity, from: Option<Severity>) -> Event {
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

    fn sent(event: &Event, format: NotifyFormat, minimum: Severity) -> Option<Value> {
        let context = Context {
            cluster: "main",
            format,
            minimum,
            key: Some("R0UT1NG"),
        };
        let message = message(event, "a1b2", &context)?;
        serde_json::from_str(&message.json).ok()
    }

    #[test]
    fn each_format_tells_what_happened() {
        use Severity::{Critical, Unknown};
        let raised = event(Kind::Raised, Critical, None);
        let json = sent(&raised, NotifyFormat::Json, Unknown).unwrap();
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
            sent(&raised, NotifyFormat::Slack, Unknown).unwrap(),
            json!({ "text": "main: raised replication-lag/cluster/db2 (critical): db2 is &lt;@all&gt; behind (runbooks/replication-lag.md)" })
        );
        let trigger = sent(&raised, NotifyFormat::PagerDuty, Unknown).unwrap();
        assert_eq!(trigger["routing_key"], "R0UT1NG");
        assert_eq!(trigger["dedup_key"], "xdb/main/replication-lag/cluster/db2");
        assert_eq!(trigger["payload"]["severity"], "critical");
        let alerts = sent(&raised, NotifyFormat::Alertmanager, Unknown).unwrap();
        assert_eq!(alerts[0]["labels"]["alertname"], "replication-lag");
        assert_eq!(alerts[0]["startsAt"], json!(at(0)));
        assert_eq!(alerts[0]["endsAt"], json!(at(60) + LASTS));
    }

    #[test]
    fn what_falls_below_the_minimum_is_over_for_the_receiver() {
        use Severity::{Critical, Warning};
        let lowered = event(Kind::Lowered, Warning, Some(Critical));
        for (minimum, action, ends) in [(Warning, "trigger", 1), (Critical, "resolve", 1)] {
            let sent_to = |format| sent(&lowered, format, minimum).unwrap();
            assert_eq!(sent_to(NotifyFormat::PagerDuty)["event_action"], action);
            let alerts = sent_to(NotifyFormat::Alertmanager);
            let ended = |alert: &&Value| alert["endsAt"] == json!(at(60));
            let alerts = alerts.as_array().unwrap();
            assert_eq!(alerts.iter().filter(ended).count(), ends);
            assert_eq!(alerts[0]["labels"]["severity"], "critical");
        }
        let silenced = event(Kind::Silenced, Warning, None);
        assert_eq!(sent(&silenced, NotifyFormat::Alertmanager, Warning), None);
        let acknowledge = sent(&silenced, NotifyFormat::PagerDuty, Warning).unwrap();
        assert_eq!(acknowledge["event_action"], "acknowledge");
        assert!(acknowledge["payload"].is_null());
        let resolved = event(Kind::Resolved, Warning, None);
        let resolve = sent(&resolved, NotifyFormat::PagerDuty, Warning).unwrap();
        assert_eq!(resolve["event_action"], "resolve");
        let alerts = sent(&resolved, NotifyFormat::Alertmanager, Warning).unwrap();
        assert_eq!(alerts[0]["endsAt"], json!(at(60)));
    }
}
