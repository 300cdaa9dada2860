//! The answer on top.

use maud::{Markup, html};

use super::Facts;
use super::words::{point, stale, word};
use crate::cluster::{self, archive_end, in_time, is_range};
use crate::model::ago;

pub(super) fn headline(facts: &Facts<'_>) -> Markup {
    let status = facts.status;
    let unread = unread(facts);
    let unproven = unread_proof(facts);
    html! {
        header {
            h1 { "PostgreSQL cluster " (status.cluster) }
            p.muted { "as " (status.reporter) " sees it at " (point(facts.now)) }
        }
        p class={ "answer " (status.verdict) } role="status" {
            (word(&status.verdict)) " " (status.answer)
        }
        dl.cards {
            (card("Recoverable to", recoverable(facts), unread.as_deref()))
            (card("RPO now", rpo(facts), None))
            (card("RTO now", rto(facts), unread.as_deref()))
            (card("Proven", proven(facts), unproven.as_deref()))
        }
    }
}

/// `unread` is why what it shows is of earlier.
fn card(title: &str, (big, small): (String, String), unread: Option<&str>) -> Markup {
    html! {
        div {
            dt { (title) }
            dd.big { (big) }
            dd.muted { (small) }
            @if unread.is_some() { dd { (stale(unread)) } }
        }
    }
}

/// Why what is known of the base backups is of earlier; `None` where it is of now, or nothing is known.
pub(super) fn unread(facts: &Facts<'_>) -> Option<String> {
    let evidence = facts.status.evidence.as_ref()?;
    let read_at = evidence.base_backup_read_at?;
    let reason = cluster::unread(evidence, facts.now)?;
    Some(format!("Last read {}: {reason}", ago(read_at, facts.now)))
}

/// The same of the last proof.
pub(super) fn unread_proof(facts: &Facts<'_>) -> Option<String> {
    let evidence = facts.status.evidence.as_ref()?;
    evidence.proof.as_ref()?;
    let reason = evidence.proof_error.clone();
    let reason = reason.or_else(|| cluster::unread(evidence, facts.now))?;
    Some(format!("Not read now: {reason}"))
}

fn recoverable(facts: &Facts<'_>) -> (String, String) {
    let evidence = facts.status.evidence.as_ref();
    let Some(backup) = evidence.and_then(|evidence| evidence.base_backup.as_ref()) else {
        let error = evidence.and_then(|evidence| evidence.base_backup_error.clone());
        let why = match evidence {
            None => "the buckets have not been checked yet".to_owned(),
            Some(_) => error.unwrap_or_else(|| "there is no base backup".to_owned()),
        };
        let known = evidence.is_some_and(|evidence| evidence.base_backup_error.is_none());
        return (if known { "nothing" } else { "unknown" }.to_owned(), why);
    };
    if let Some(reason) = &backup.unusable {
        return ("nothing".to_owned(), reason.clone());
    }
    let Some(end) = archive_end(facts.view, facts.known) else {
        return ("its backup".to_owned(), backup.backup.clone());
    };
    let archived = ago(end.archived_at, facts.now);
    let from = evidence.and_then(|evidence| evidence.extent.as_ref()?.from);
    let from = from.map_or_else(String::new, |from| format!("; from {}", point(from)));
    let gap = backup.gap.as_ref();
    let gap = gap.map_or_else(String::new, |gap| format!("; WAL is missing: {gap}"));
    let small = format!("archived {archived}, timeline {}{from}{gap}", end.timeline);
    (end.lsn.to_string(), small)
}

fn rpo(facts: &Facts<'_>) -> (String, String) {
    let rpo = &facts.status.rpo;
    let reason = rpo.reason.clone().unwrap_or_default();
    let objective = rpo
        .warning_secs
        .map(|secs| format!("objective {}", in_time(secs)));
    match rpo.secs {
        None => ("unknown".to_owned(), reason),
        Some(secs) => {
            let most = if rpo.at_most { "at most " } else { "" };
            let shown = if secs == 0.0 {
                "0 s".to_owned()
            } else {
                in_time(secs)
            };
            let held = (secs == 0.0).then(|| "the archive holds every commit".to_owned());
            let small = [held, Some(reason).filter(|it| !it.is_empty()), objective];
            let small: Vec<_> = small.into_iter().flatten().collect();
            (format!("{most}{shown}"), small.join("; "))
        }
    }
}

fn rto(facts: &Facts<'_>) -> (String, String) {
    let rto = &facts.status.rto;
    let big = match (rto.secs, rto.low_secs, rto.high_secs) {
        (None, ..) => "unknown".to_owned(),
        (Some(_), Some(low), Some(high)) if is_range(low, high) => {
            format!("{} to {}", in_time(low), in_time(high))
        }
        (Some(secs), ..) => format!("about {}", in_time(secs)),
    };
    let objective = rto.objective_secs;
    let objective =
        objective.map_or_else(String::new, |secs| format!("; objective {}", in_time(secs)));
    (big, format!("by {}{objective}", rto.based_on))
}

fn proven(facts: &Facts<'_>) -> (String, String) {
    let evidence = facts.status.evidence.as_ref();
    let Some(proof) = evidence.and_then(|evidence| evidence.proof.as_ref()) else {
        let error = evidence.and_then(|evidence| evidence.proof_error.clone());
        return match (evidence, error) {
            (Some(_), None) => (
                "never".to_owned(),
                "no restore test has passed yet".to_owned(),
            ),
            (_, error) => ("unknown".to_owned(), error.unwrap_or_default()),
        };
    };
    let backup = proof.backup.clone().unwrap_or_default();
    let lsn = proof
        .lsn
        .map_or_else(String::new, |lsn| format!(" to {lsn}"));
    let unproven = match proof.newest_backup_proven {
        Some(false) => "; the newest base backup has no passed restore test",
        _ => "",
    };
    let small = format!("on {}: {backup}{lsn}{unproven}", proof.node);
    (ago(proof.at, facts.now), small)
}
