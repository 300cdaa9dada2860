//! What this node depends on and cannot use: S3, Redis, its own state store. Each is an alert under its own name.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use super::Node;
use crate::alerts::Judged;
use crate::archive;
use crate::log;
use crate::model::{Finding, Scope, Verdict};
use crate::storage::Bucket;
use crate::store::Fault;

/// Between two looks at S3 while it answers, and while it does not.
const LOOK_EVERY: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_secs(3);
/// For one look.
const ANSWER: Duration = Duration::from_secs(5);

/// Checks that only show the symptoms of an S3 that is away.
const SYMPTOMS: [&str; 3] = ["archiver", "archive-backlog-age", "wal-volume"];

/// A service that may not answer.
#[derive(Debug, Default)]
pub(super) struct Outage(Mutex<Option<(Timestamp, String)>>);

impl Outage {
    /// Takes in what the last attempt came to; says whether it began or ended just now.
    pub(super) fn noted(&self, failure: Option<String>, now: Timestamp) -> bool {
        let mut outage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let was = outage.as_ref().map(|(since, _)| *since);
        let changed = was.is_some() != failure.is_some();
        *outage = failure.map(|reason| (was.unwrap_or(now), reason));
        changed
    }

    /// Since when it does not answer, and why; `None` while it does.
    pub(super) fn known(&self) -> Option<(Timestamp, String)> {
        let outage = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        outage.clone()
    }
}

/// The services beside this node.
#[derive(Debug, Default)]
pub(super) struct Outages {
    pub s3: Outage,
    pub redis: Outage,
}

/// Asks the repository's bucket each few seconds.
pub(super) async fn watch_s3(node: &Node) {
    let mut bucket = None;
    loop {
        let failure = match timeout(ANSWER, ask(node, &mut bucket)).await {
            Ok(asked) => asked.err(),
            Err(_) => Some(format!("S3 does not answer within {} s", ANSWER.as_secs())),
        };
        if failure.is_some() {
            // Credentials and addresses may change.
            bucket = None;
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

/// Lists what is not there: as small an answer as S3 gives to whoever may archive.
async fn ask(node: &Node, bucket: &mut Option<(Bucket, String)>) -> Result<(), String> {
    let config = &node.tools.loaded.config;
    let (bucket, key) = match bucket.take() {
        Some(open) => bucket.insert(open),
        None => {
            let repository = archive::repository(config).map_err(|error| log::chain(&error))?;
            let open = Bucket::open(&config.s3, &repository.bucket).await;
            let open = open.map_err(|error| log::chain(&error))?;
            bucket.insert((open, repository.key("wal_005/xdb-probe")))
        }
    };
    let listed = bucket.list(key).await;
    listed.map(|_| ()).map_err(|error| log::chain(&error))
}

/// What of it is known on this node, with how long it must last to be an alert.
pub(super) fn judge(node: &Node, now: Timestamp) -> Vec<Judged> {
    let leads = node.view.borrow().leads(now);
    let scope = Scope::Node(node.hostname().to_owned());
    let judged = [
        judge_store(node.store.fault()),
        judge_s3(node.outages.s3.known(), leads),
        judge_redis(node.outages.redis.known()),
    ];
    judged
        .into_iter()
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

/// The primary's WAL waits at once; what a replica does in the bucket can wait longer.
fn judge_s3(outage: Option<(Timestamp, String)>, leads: bool) -> Judgement {
    let hold = if leads { 5 } else { 30 };
    let verdict = outage.map_or(Verdict::Ok, |(since, reason)| {
        let since = since.strftime("%F %T UTC");
        if leads {
            Verdict::Critical(format!(
                "no WAL can be archived since {since}, it waits on this node: {reason}"
            ))
        } else {
            Verdict::Warning(format!(
                "no dump and no restore test is possible since {since}: {reason}"
            ))
        }
    });
    ("s3", verdict, hold)
}

fn judge_redis(outage: Option<(Timestamp, String)>) -> Judgement {
    let verdict = outage.map_or(Verdict::Ok, |(since, reason)| {
        Verdict::Warning(format!(
            "alerts wait on this node since {}: {reason}",
            since.strftime("%F %T UTC")
        ))
    });
    ("redis", verdict, 30)
}

/// Adds the cause to what is only its symptom.
pub(super) fn name_cause(findings: &mut [Finding], s3: Option<&str>) {
    let Some(cause) = s3 else { return };
    let symptoms = findings
        .iter_mut()
        .filter(|finding| SYMPTOMS.contains(&finding.check.as_str()));
    for finding in symptoms {
        let verdict = &mut finding.verdict;
        if let Verdict::Warning(reason) | Verdict::Critical(reason) | Verdict::Unknown(reason) =
            verdict
        {
            *reason = format!("{reason}; cause: {cause}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_outage_keeps_its_beginning_and_follows_its_reason() {
        let outage = Outage::default();
        assert!(!outage.noted(None, at(1)));
        assert!(outage.noted(Some("refused".to_owned()), at(2)));
        assert!(!outage.noted(Some("no answer".to_owned()), at(3)));
        assert_eq!(outage.known(), Some((at(2), "no answer".to_owned())));
        assert!(outage.noted(None, at(4)));
        assert_eq!(outage.known(), None);
    }

    #[test]
    fn an_s3_that_is_away_is_critical_where_wal_waits() {
        let outage = || Some((at(0), "S3 does not answer".to_owned()));
        let (_, on_primary, first) = judge_s3(outage(), true);
        let (_, on_replica, later) = judge_s3(outage(), false);
        assert_eq!(
            (on_primary.word(), on_replica.word()),
            ("critical", "warning")
        );
        assert!(first < later);
        for verdict in [on_primary, on_replica] {
            assert!(verdict.reason().unwrap().contains("S3 does not answer"));
        }
        assert_eq!(judge_s3(None, true).1, Verdict::Ok);
    }

    #[test]
    fn the_cause_is_added_to_its_symptoms_alone() {
        let finding = |check: &str, verdict| Finding::new(check, Scope::Cluster, "", verdict);
        let bad = || Verdict::Critical("5 files wait".to_owned());
        let mut findings = [
            finding("archiver", bad()),
            finding("replication-lag", bad()),
            finding("archive-backlog-age", Verdict::Ok),
        ];
        name_cause(&mut findings, None);
        assert_eq!(findings[0].verdict, bad());
        name_cause(&mut findings, Some("S3 does not answer"));
        let reasons = findings.each_ref().map(|finding| finding.verdict.reason());
        let named = Some("5 files wait; cause: S3 does not answer");
        assert_eq!(reasons, [named, Some("5 files wait"), None]);
    }
}
