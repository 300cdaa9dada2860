//! Judges the cluster, and raises alerts about it where this node speaks for all.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::{every, outages};
use crate::alerts::{Extent, Judged};
use crate::cluster::{
    Evidence, Knowledge, PAGED, Peer, Standing, Status, View, evaluate, speaks_for_cluster,
};
use crate::jobs::base_backup;
use crate::log;
use crate::model::{AlertKey, Finding, Scope, Verdict};
use crate::runner::{JUDGED_BY_LOOK, Node, alerts};

/// Who finds what [`outages`] judges, among the findings of this node.
pub(super) const OUTAGES: &str = "outages";

/// Whether this node judges what concerns the cluster as a whole; `None` before the others were asked.
pub(super) fn speaks(node: &Node, now: Timestamp) -> Option<bool> {
    let view = node.view.borrow();
    let peers = &node.tools.known.borrow().peers;
    // A primary that was served before a restart counts as asked at once; here each peer must have been asked.
    let asked = peers.iter().all(Peer::was_asked);
    // A server that is down is asked about when it is back, and somebody must speak meanwhile.
    let waits = view.failing.is_none() && !(view.asked_peers && view.asked_archive);
    (asked && !waits).then(|| speaks_for_cluster(node.hostname(), &view, peers, now))
}

/// The verdict on the cluster by what this node knows now.
pub(super) fn status(node: &Node, view: &View, known: &Knowledge, now: Timestamp) -> Status {
    let cluster = &node.tools.loaded.config.cluster.name;
    evaluate(cluster, node.hostname(), view, known, now)
}

/// Judges every few seconds, and keeps the node's own alerts where the verdict is made.
pub(super) async fn judge(node: &Node, known: &watch::Sender<Knowledge>) {
    // Until it turns out otherwise: alerts of the cluster may be left from before a restart.
    let mut spoke = true;
    let mut ticks = every(2);
    loop {
        ticks.tick().await;
        let now = Timestamp::now();
        match node.alerts.known().await {
            Ok(alerts) => known.send_modify(|known| known.alerts = Standing::of(&alerts)),
            Err(error) => tracing::error!("the alerts cannot be read: {}", log::chain(&error)),
        }
        // After the store was used: its own fault is known then.
        let outages = outages::judge(node, &known.borrow().alerts, now);
        let found = outages.iter().map(|one| one.finding.clone());
        node.activity
            .found(OUTAGES, &found.collect::<Vec<_>>(), now);
        record(node, outages, now).await;
        let receivers = outages::judge_receivers(node, now);
        record_to(node, receivers, Extent::Part, now).await;
        end_former_receivers(node).await;
        match node.alerts.notify(now).await {
            Ok(events) if events.is_empty() => {}
            Ok(_) => alerts::deliver(node).await,
            Err(error) => tracing::error!("reminders and silences wait: {}", log::chain(&error)),
        }
        let speaks = speaks(node, now);
        if speaks == Some(true) {
            spoke = true;
            let status = status(node, &node.view.borrow(), &known.borrow(), now);
            let all_heard = known
                .borrow()
                .peers
                .iter()
                .all(|peer| peer.last_answer.is_some());
            record_status(node, status, all_heard, now).await;
        } else if speaks == Some(false) && spoke {
            spoke = false;
            // Another node speaks: it takes them over from Redis, and ends what is over.
            let forgotten = node.alerts.forget(|key| key.scope == Scope::Cluster).await;
            if let Err(error) = forgotten {
                tracing::error!("alerts cannot be forgotten: {}", log::chain(&error));
            }
        }
    }
}

/// Ends the alerts about receivers that are not configured any more: nothing judges them.
async fn end_former_receivers(node: &Node) {
    let standing = node.tools.known.borrow().alerts.clone();
    let is_former = |key: &AlertKey| {
        let is_own = key.scope == Scope::Node(node.hostname().to_owned());
        is_own && outages::is_of_former_receiver(&node.tools.loaded, key)
    };
    let keys = standing.iter().map(|alert| AlertKey::parse(&alert.key));
    let former: Vec<AlertKey> = keys.filter_map(Result::ok).filter(is_former).collect();
    if !former.is_empty() {
        let which = move |key: &AlertKey| former.contains(key);
        alerts::resolve(node, which, "no such receiver is configured any more").await;
    }
}

async fn record_status(node: &Node, status: Status, all_heard: bool, now: Timestamp) {
    let paged = |finding: &Finding| PAGED.contains(&finding.check.as_str());
    let looked = has_looked(status.evidence.as_ref());
    let had_backup = node.successes.get(&base_backup::JOB).is_some();
    let findings = status.findings.into_iter().filter(paged);
    let judged = findings.map(|finding| Judged {
        hold: hold(&finding, had_backup),
        finding,
    });
    let (whole, part) = judged.partition(|one| is_whole(&one.finding, looked, all_heard));
    record(node, whole, now).await;
    record_to(node, part, Extent::Part, now).await;
}

fn has_looked(evidence: Option<&Evidence>) -> bool {
    evidence.is_some_and(|evidence| evidence.faults.is_some())
}

/// Whether a finding says that its check has no other object than those found. After a restart without S3 only Redis and
/// the list of timelines tell of a foreign backup: an alert on what the bucket showed before stands. A peer has its own name
/// only once it was heard.
fn is_whole(finding: &Finding, looked: bool, all_heard: bool) -> bool {
    if finding.check == "node" {
        return all_heard;
    }
    looked || !JUDGED_BY_LOOK.contains(&finding.check.as_str())
}

async fn record(node: &Node, judged: Vec<Judged>, now: Timestamp) {
    record_to(node, judged, Extent::Whole, now).await;
}

async fn record_to(node: &Node, judged: Vec<Judged>, extent: Extent, now: Timestamp) {
    match node.alerts.record(judged, extent, now).await {
        Ok(events) if events.is_empty() => {}
        Ok(_) => alerts::deliver(node).await,
        Err(error) => tracing::error!("alerts cannot be kept: {}", log::chain(&error)),
    }
}

/// How long it must last to be worth an alert. `had_backup`: a base backup of this cluster has succeeded before.
///
/// Segments that are pushed side by side arrive in any order: such a gap closes by the next look or the one after it.
fn hold(finding: &Finding, had_backup: bool) -> Duration {
    let unknown = matches!(finding.verdict, Verdict::Unknown(_));
    match finding.check.as_str() {
        "recoverability" if unknown || !had_backup => Duration::from_mins(10),
        "recoverability" => Duration::from_secs(75),
        "wal-gap" | "backup-incomplete" => Duration::from_mins(3),
        // What could not be measured may be measured soon; an age that is over its limit has lasted already.
        "archive-rpo" if unknown => Duration::from_mins(10),
        // A clock that was set makes ages wrong until the next measurement.
        "archive-rpo" => Duration::from_secs(5),
        // A node is silent only after a minute; one that was never heard may answer yet.
        "node" if unknown => Duration::from_mins(1),
        "node" => Duration::ZERO,
        // Nothing can be written meanwhile.
        "primary" if !unknown => Duration::from_secs(2),
        // Nodes that have just started do not know each other yet.
        _ => Duration::from_secs(20),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks;
    use crate::jobs::JOBS;

    #[test]
    fn a_doubt_that_redis_raised_ends_no_other_before_the_bucket_was_read() {
        let finding = |check, object| {
            let verdict = Verdict::Warning("is doubtful".to_owned());
            Finding::new(check, Scope::Cluster, object, verdict)
        };
        for (check, looked, all_heard, whole) in [
            ("foreign-backup", true, false, true),
            ("foreign-backup", false, true, false),
            ("primary", false, false, true),
            ("node", true, false, false),
            ("node", false, true, true),
        ] {
            let found = is_whole(&finding(check, "redis"), looked, all_heard);
            assert_eq!(found, whole, "{check} {looked} {all_heard}");
        }
        let unread = Evidence::unread(Timestamp::UNIX_EPOCH, "S3 does not answer");
        assert!(!has_looked(None) && !has_looked(Some(&unread)));
    }

    #[test]
    fn a_lost_archive_is_an_alert_within_two_minutes_and_a_new_cluster_has_time_for_its_first_backup()
     {
        let critical = || Verdict::Critical("WAL is missing".to_owned());
        let unknown = || Verdict::Unknown("S3 does not answer".to_owned());
        for (check, verdict, had_backup, at_least, at_most) in [
            ("recoverability", critical(), true, 60, 100),
            ("recoverability", critical(), false, 600, 600),
            ("recoverability", unknown(), true, 600, 600),
            ("wal-gap", critical(), true, 60, 300),
            ("backup-incomplete", critical(), true, 60, 300),
            ("node", unknown(), true, 60, 60),
            ("node", critical(), true, 0, 0),
        ] {
            let finding = Finding::new(check, Scope::Cluster, "", verdict);
            let secs = hold(&finding, had_backup).as_secs();
            assert!((at_least..=at_most).contains(&secs), "{check}: {secs} s");
        }
    }

    #[test]
    fn no_check_file_can_take_the_name_of_an_alert_that_is_made_here() {
        let jobs = JOBS.into_iter().map(|job| job.name);
        for name in jobs.chain(["s3", "redis", "state-store", "alert-delivery"]) {
            assert!(checks::BUILT_IN.contains(&name), "{name}");
        }
    }
}
