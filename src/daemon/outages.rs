//! What this node depends on and cannot use: S3, Redis, its own state store. Each is an alert under its own name.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{sleep, timeout};

use crate::alerts::{DELIVERY, Judged};
use crate::cluster::{Standing, View};
use crate::config::{HEARTBEAT, Loaded};
use crate::log;
use crate::model::{AlertKey, Finding, Scope, Verdict};
use crate::runner::{Attempt, LeftOut, Node, has_heartbeat};
use crate::store::Fault;

/// Between two looks at S3 while it answers, and while it does not.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// For one look.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks the repository's bucket each few seconds.
pub(super) async fn watch_s3(node: &Node) {
    loop {
        let failure = match timeout(ANSWER, node.tools.repository.probe()).await {
            Ok(answer) => answer.err().map(|error| log::chain(&error)),
            Err(_) => Some(format!("S3 does not answer within {} s", ANSWER.as_secs())),
        };
        if failure.is_some() {
            node.tools.repository.close().await;
        }
        let pause = if failure.is_some() {
            LOOK_AGAIN
        } else {
            LOOK_EVERY
        };
        let told = failure.clone();
        if node.outages.s3.noted(failure, Timestamp::now()) {
            match told {
                Some(reason) => tracing::warn!("the archive's bucket cannot be used: {reason}"),
                None => tracing::info!("the archive's bucket can be used again"),
            }
        }
        sleep(pause).await;
    }
}

/// What of it is known on this node, with how long it must last to be an alert. An alert of `standing`, which may be from
/// before a restart, tells since when. What was not tried yet is left out, and its alert stands.
pub(super) fn judge(node: &Node, standing: &[Standing], now: Timestamp) -> Vec<Judged> {
    let scope = Scope::Node(node.hostname().to_owned());
    let since = |check: &str| {
        let key = AlertKey {
            check: check.to_owned(),
            scope: scope.clone(),
            object: String::new(),
        };
        let key = key.to_string();
        let alert = standing.iter().find(|alert| alert.key == key);
        alert.map_or(now, |alert| alert.since)
    };
    let role = Role::of(&node.view.borrow());
    let judged = [
        Some(judge_store(node.store.fault())),
        judge_s3(&node.outages.s3.last(), role, since("s3")),
        judge_redis(&node.outages.redis.last(), since("redis")),
    ];
    judged
        .into_iter()
        .flatten()
        .map(|(check, verdict, hold)| {
            let mut finding = Finding::new(check, scope.clone(), "", verdict);
            finding.runbook = Some(format!("runbooks/{check}.md"));
            Judged {
                finding,
                hold: Duration::from_secs(hold),
            }
        })
        .collect()
}

/// An event that a receiver refused is shown for so long.
const SHOWN: SignedDuration = SignedDuration::from_hours(1);

/// Each receiver that was tried. One that was not stands as it was before a restart.
pub(super) fn judge_receivers(node: &Node, now: Timestamp) -> Vec<Judged> {
    let tried = node.outages.receivers.last().into_iter();
    let judged = tried.map(|(name, last, left_out)| {
        let (verdict, hold) = judge_receiver(&name, &last, left_out.as_ref(), now);
        let scope = Scope::Node(node.hostname().to_owned());
        let mut finding = Finding::new(DELIVERY, scope, name, verdict);
        finding.runbook = Some(format!("runbooks/{DELIVERY}.md"));
        Judged { finding, hold }
    });
    judged.collect()
}

fn judge_receiver(
    name: &str,
    last: &Attempt,
    left_out: Option<&LeftOut>,
    now: Timestamp,
) -> (Verdict, Duration) {
    let hold = Duration::from_secs(30);
    let time = |at: Timestamp| at.min(now).strftime("%F %T UTC");
    if let Attempt::Failed(since, reason) = last {
        let since = time(*since);
        let what = match name.strip_prefix(HEARTBEAT) {
            Some(job) => {
                format!("the call of the heartbeat URL of {job} has failed since {since}: {reason}")
            }
            None => format!("{name} has received no events since {since}: {reason}"),
        };
        return (Verdict::Warning(what), hold);
    }
    let recent = left_out.filter(|left_out| now.duration_since(left_out.at) < SHOWN);
    match recent {
        Some(left_out) => {
            let (at, event) = (time(left_out.at), &left_out.event);
            let reason = format!("{name} refused an event at {at}, which is lost to it: {event}");
            (Verdict::Warning(reason), Duration::ZERO)
        }
        None => (Verdict::Ok, hold),
    }
}

/// Whether an alert on the receivers is about one that is not configured any more. One whose section has a mistake is not gone.
pub(super) fn is_of_former_receiver(loaded: &Loaded, key: &AlertKey) -> bool {
    let config = &loaded.config;
    let mut receivers = config.notify.iter().map(|notify| notify.name.as_str());
    let is_known = receivers.any(|name| name == key.object)
        || key
            .object
            .strip_prefix(HEARTBEAT)
            .is_some_and(|job| has_heartbeat(&config.heartbeat, job));
    key.check == DELIVERY && loaded.faults.is_empty() && !is_known
}

/// A check with its verdict, and for how many seconds it must last.
type Judgement = (&'static str, Verdict, u64);

fn judge_store(fault: Option<Fault>) -> Judgement {
    let verdict = fault.map_or(Verdict::Ok, |fault| {
        Verdict::Critical(format!(
            "the state store cannot be used since {}: {}; the daemon keeps its state in memory and loses it when it stops",
            fault.since.strftime("%F %T UTC"),
            fault.reason
        ))
    });
    ("state-store", verdict, 5)
}

/// What waits while S3 is away depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Leads,
    Follows,
    /// The server has not answered since the daemon began.
    Unknown,
}

impl Role {
    /// By what the server last said: one that is down still has its WAL.
    fn of(view: &View) -> Self {
        match view.sample {
            Some(_) if view.led_last() => Self::Leads,
            Some(_) => Self::Follows,
            None => Self::Unknown,
        }
    }
}

/// The primary's WAL waits at once; what a replica does in the bucket can wait longer.
fn judge_s3(last: &Attempt, role: Role, standing: Timestamp) -> Option<Judgement> {
    let hold = if role == Role::Leads { 5 } else { 30 };
    let verdict = match last {
        Attempt::Missing => return None,
        Attempt::Answered => Verdict::Ok,
        Attempt::Failed(since, reason) => {
            let since = standing.min(*since).strftime("%F %T UTC");
            match role {
                Role::Leads => Verdict::Critical(format!(
                    "no WAL can be archived since {since}, it waits on this node: {reason}"
                )),
                Role::Follows => Verdict::Warning(format!(
                    "no dump and no restore test is possible since {since}: {reason}"
                )),
                // It neither raises nor lowers what stands from before a restart.
                Role::Unknown => Verdict::Unknown(format!(
                    "{reason} since {since}; the role of this node is not known"
                )),
            }
        }
    };
    Some(("s3", verdict, hold))
}

fn judge_redis(last: &Attempt, standing: Timestamp) -> Option<Judgement> {
    let verdict = match last {
        Attempt::Missing => return None,
        Attempt::Answered => Verdict::Ok,
        Attempt::Failed(since, reason) => Verdict::Warning(format!(
            "alerts wait on this node since {}: {reason}",
            standing.min(*since).strftime("%F %T UTC")
        )),
    };
    Some(("redis", verdict, 30))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigFile, Sources, load_to_serve};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_s3_that_is_away_is_critical_where_wal_waits() {
        let outage = Attempt::Failed(at(60), "S3 does not answer".to_owned());
        let judged = |role| judge_s3(&outage, role, at(90)).unwrap();
        for (role, word, hold) in [
            (Role::Leads, "critical", 5),
            (Role::Follows, "warning", 30),
            (Role::Unknown, "unknown", 30),
        ] {
            let (_, verdict, held) = judged(role);
            assert_eq!((verdict.word(), held), (word, hold));
            let reason = verdict.reason().unwrap();
            assert!(reason.contains("S3 does not answer"), "{reason}");
            assert!(reason.contains("1970-01-01 00:01:00 UTC"), "{reason}");
        }
        let answered = judge_s3(&Attempt::Answered, Role::Leads, at(90)).unwrap();
        assert_eq!(answered.1, Verdict::Ok);
    }

    #[test]
    fn a_receiver_that_fails_and_an_event_that_it_refused_are_said_in_words() {
        let failed = Attempt::Failed(at(60), "refused".to_owned());
        let lost = LeftOut {
            at: at(60),
            event: "raised disk/db1/: answered 422".to_owned(),
        };
        let hour = 3600;
        for (name, last, left_out, now, expected, hold) in [
            ("pager", &Attempt::Answered, None, 70, None, 30),
            (
                "pager",
                &failed,
                Some(&lost),
                70,
                Some("pager has received no events since 1970-01-01 00:01:00 UTC: refused"),
                30,
            ),
            (
                "heartbeat-dump",
                &failed,
                None,
                70,
                Some(
                    "the call of the heartbeat URL of dump has failed since 1970-01-01 00:01:00 UTC: refused",
                ),
                30,
            ),
            (
                "pager",
                &Attempt::Answered,
                Some(&lost),
                70,
                Some(
                    "pager refused an event at 1970-01-01 00:01:00 UTC, which is lost to it: raised disk/db1/: answered 422",
                ),
                0,
            ),
            (
                "pager",
                &Attempt::Answered,
                Some(&lost),
                60 + hour,
                None,
                30,
            ),
        ] {
            let (verdict, held) = judge_receiver(name, last, left_out, at(now));
            assert_eq!(verdict.reason(), expected);
            assert_eq!(held.as_secs(), hold, "{expected:?}");
        }
    }

    #[test]
    fn the_alert_of_a_receiver_ends_only_where_it_is_gone_from_a_configuration_without_mistakes() {
        const KEPT: &str = "[[notify]]\nname = \"chat\"\nformat = \"json\"\nurl = \"/etc/xdb/chat.url\"\n\
                            [heartbeat]\ndump = \"/etc/xdb/dump.url\"\n";
        const MISTAKE: &str = "[[notify]]\nname = \"pager\"\nformat = \"jsn\"\n";
        for (more, key, ends) in [
            ("", "alert-delivery/db1/chat", false),
            ("", "alert-delivery/db1/heartbeat-dump", false),
            ("", "alert-delivery/db1/pager", true),
            ("", "alert-delivery/db1/heartbeat-prune", true),
            ("", "redis/db1/", false),
            (MISTAKE, "alert-delivery/db1/pager", false),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("xdb.toml");
            std::fs::write(&file, format!("{more}{KEPT}")).unwrap();
            let sources = Sources {
                file: ConfigFile::Default(file),
                environment_file: directory.path().join("environment"),
                process: Default::default(),
                flags: Vec::new(),
            };
            let loaded = load_to_serve(&sources).unwrap();
            let key = AlertKey::parse(key).unwrap();
            let found = is_of_former_receiver(&loaded, &key);
            assert_eq!(found, ends, "{key} {:?}", loaded.faults);
        }
    }

    #[test]
    fn after_a_restart_nothing_is_judged_before_it_was_tried_and_an_alert_keeps_its_beginning() {
        assert_eq!(judge_s3(&Attempt::Missing, Role::Leads, at(0)), None);
        assert_eq!(judge_redis(&Attempt::Missing, at(0)), None);
        let outage = Attempt::Failed(at(60), "refused".to_owned());
        for judged in [
            judge_s3(&outage, Role::Leads, at(0)),
            judge_redis(&outage, at(0)),
        ] {
            let (_, verdict, _) = judged.unwrap();
            let reason = verdict.reason().unwrap();
            assert!(reason.contains("1970-01-01 00:00:00 UTC"), "{reason}");
        }
    }
}
