//! What this node depends on and cannot use: S3, Redis, its own state store. Each is an alert under its own name.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use crate::alerts::{DELIVERY, Judged};
use crate::cluster::{Standing, View};
use crate::log;
use crate::model::{AlertKey, Finding, Scope, Verdict};
use crate::runner::{Attempt, Node};
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

/// Each receiver that was tried. One that was not stands as it was before a restart.
pub(super) fn judge_receivers(node: &Node, now: Timestamp) -> Vec<Judged> {
    let scope = Scope::Node(node.hostname().to_owned());
    let tried = node.outages.receivers.last().into_iter();
    let judged = tried.map(|(name, last)| {
        let verdict = match last {
            Attempt::Missing | Attempt::Answered => Verdict::Ok,
            Attempt::Failed(since, reason) => {
                let since = since.min(now).strftime("%F %T UTC");
                Verdict::Warning(format!("{name} is not told since {since}: {reason}"))
            }
        };
        let mut finding = Finding::new(DELIVERY, scope.clone(), name, verdict);
        finding.runbook = Some(format!("runbooks/{DELIVERY}.md"));
        Judged {
            finding,
            hold: Duration::from_secs(30),
        }
    });
    judged.collect()
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
