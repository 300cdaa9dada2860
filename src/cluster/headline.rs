//! The headline: what a restore from the archive gives if the primary is lost now. One sentence for each state, pure.

use jiff::{SignedDuration, Timestamp};

use super::judge::STALE;
use super::rpo::{LiveRpo, in_time};
use super::{ArchiveEnd, Evidence, Line, ProvenRestore, Recoverable, RestoreForecast};
use crate::model::ago;

/// `end` is the newest end of the archive that is known, which may be newer than the last look at the buckets.
pub(super) fn answer(
    nodes: &[Line],
    evidence: Option<&Evidence>,
    end: Option<ArchiveEnd>,
    rpo: &LiveRpo,
    now: Timestamp,
) -> String {
    let Some(evidence) = evidence else {
        return "recoverability unknown: the buckets have not been checked yet".to_owned();
    };
    let unread = unread(evidence, now);
    let Some(backup) = &evidence.base_backup else {
        return match unread {
            Some(reason) => format!("recoverability unknown: {reason}"),
            None => format!(
                "{}: nothing is recoverable from the archive, because there is no base backup",
                lost(nodes)
            ),
        };
    };
    let mut parts = vec![match &backup.unusable {
        Some(reason) => format!(
            "{}: the newest base backup {} cannot be restored: {reason}",
            lost(nodes),
            backup.backup
        ),
        None => recoverable(nodes, backup, end, evidence.forecast.as_ref(), now),
    }];
    if backup.unusable.is_none() {
        parts.push(rpo_words(rpo));
    }
    parts.push(proof_words(evidence, &backup.backup, now));
    if let Some(reason) = unread {
        let read_at = evidence.base_backup_read_at;
        let read_at = read_at.map_or_else(|| "before".to_owned(), |at| ago(at, now));
        parts.push(format!("last read {read_at}, because {reason}"));
    }
    parts.join("; ")
}

/// Why what is known of the base backups is not of now; `None` where it is.
pub(crate) fn unread(evidence: &Evidence, now: Timestamp) -> Option<String> {
    let stale: SignedDuration = STALE;
    let too_old = now.duration_since(evidence.at) > stale;
    let old = || format!("the buckets were last checked {}", ago(evidence.at, now));
    evidence
        .base_backup_error
        .clone()
        .or_else(|| too_old.then(old))
}

fn lost(nodes: &[Line]) -> String {
    let leads = |node: &&Line| node.role.as_deref() == Some("primary");
    // After a failover the old primary is listed as one until it has been silent for a while.
    let primary = nodes.iter().filter(leads).max_by_key(|node| {
        let heard_at = node.heard_at;
        (node.timeline, heard_at, std::cmp::Reverse(&node.hostname))
    });
    let primary = primary.map_or("the primary", |node| node.hostname.as_str());
    format!("If {primary} is lost now")
}

fn recoverable(
    nodes: &[Line],
    backup: &Recoverable,
    end: Option<ArchiveEnd>,
    forecast: Option<&RestoreForecast>,
    now: Timestamp,
) -> String {
    let to = match end {
        Some(end) => format!("{} (archived {})", end.lsn, ago(end.archived_at, now)),
        None => format!("the end of {}", backup.backup),
    };
    let gap = backup.gap.as_ref().map_or_else(String::new, |gap| {
        format!(", because WAL is missing ({gap})")
    });
    let only = if backup.gap.is_some() { " only" } else { "" };
    let takes = match forecast {
        Some(forecast) => takes(forecast),
        None => "restore time unknown".to_owned(),
    };
    format!("{}: recoverable to {to}{only}{gap}, {takes}", lost(nodes))
}

/// A range where the tests do not tell more.
fn takes(forecast: &RestoreForecast) -> String {
    match (forecast.secs, forecast.low_secs, forecast.high_secs) {
        (Some(_), Some(low), Some(high)) if is_range(low, high) => {
            format!("restore takes {} to {}", in_time(low), in_time(high))
        }
        (Some(secs), ..) => format!("restore takes about {}", in_time(secs)),
        (None, ..) => format!("restore time unknown: {}", forecast.based_on),
    }
}

/// Whether the two are too far apart to be shown as one number.
pub(crate) fn is_range(low: f64, high: f64) -> bool {
    high > low * 1.4 && high - low > 1.0
}

pub(super) fn rpo_words(rpo: &LiveRpo) -> String {
    let reason = rpo.reason.as_deref();
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    match rpo.secs {
        None => format!("RPO unknown{reason}"),
        Some(0.0) => format!("RPO 0 s{reason}"),
        Some(secs) if rpo.at_most => format!("RPO at most {}{reason}", in_time(secs)),
        Some(secs) => format!("RPO {}{reason}", in_time(secs)),
    }
}

/// What was proven, and whether that is the newest backup.
fn proof_words(evidence: &Evidence, newest: &str, now: Timestamp) -> String {
    let Some(proof) = &evidence.proof else {
        return match &evidence.proof_error {
            Some(reason) => format!("the last restore test is unknown: {reason}"),
            None => "no restore test has passed yet".to_owned(),
        };
    };
    let rto = proof.rto_secs.map_or_else(String::new, |secs| {
        format!("last measured RTO {}; ", in_time(secs))
    });
    let unproven = if proof.newest_backup_proven == Some(false) {
        format!("; the newest base backup {newest} has no passed restore test")
    } else {
        String::new()
    };
    format!(
        "{rto}proven {} on {}{}{unproven}",
        ago(proof.at, now),
        proof.node,
        proven(proof)
    )
}

/// As ": base_… to 0/A000000".
pub(crate) fn proven(proof: &ProvenRestore) -> String {
    match (&proof.backup, proof.lsn) {
        (Some(backup), Some(lsn)) => format!(": {backup} to {lsn}"),
        (Some(backup), None) => format!(": {backup}"),
        (None, _) => String::new(),
    }
}

/// What was archived after the proof, as "192.0 MiB of WAL was archived since".
pub(crate) fn since_proof(proof: &ProvenRestore, end: Option<ArchiveEnd>) -> Option<String> {
    let (proven, end) = (proof.lsn?, end?);
    let bytes = end.lsn.0.checked_sub(proven.0)?;
    Some(match bytes {
        0 => "no WAL was archived since".to_owned(),
        _ => format!("{} of WAL was archived since", bytesize::ByteSize(bytes)),
    })
}
