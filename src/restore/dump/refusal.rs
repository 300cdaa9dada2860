//! Reasons not to begin a restore. Pure.

use bytesize::ByteSize;

use super::destination::Existing;
use super::restore_request::{DumpRestorePlan, Refusal};

/// The server that is restored into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server {
    pub in_recovery: bool,
    /// Its major version, and that of the server that was dumped.
    pub major: u32,
    pub dumped_major: u32,
}

/// The first reason not to begin what is planned; `existing` is the database of the wanted name.
pub(super) fn judge_plan(
    plan: &DumpRestorePlan,
    at: Server,
    existing: Option<&Existing>,
    clean: bool,
) -> Option<Refusal> {
    let refuse = |reason: String, hint: &str| {
        let hint = hint.to_owned();
        Some(Refusal { reason, hint })
    };
    let server = &plan.server;
    if at.in_recovery {
        return refuse(
            format!("{server} is a standby, which cannot be written"),
            "run it on the primary's node, or name the primary with --target",
        );
    }
    let (found, dumped) = (at.major, at.dumped_major);
    if found < dumped {
        return refuse(
            format!("{server} is PostgreSQL {found}, older than the dump's {dumped}"),
            "restore it into a server of that version or a newer one (--target)",
        );
    }
    if !plan.missing_extensions.is_empty() {
        return refuse(
            format!(
                "{server} lacks extensions: {}",
                plan.missing_extensions.join(", ")
            ),
            "install their packages on that server",
        );
    }
    if !plan.missing_roles.is_empty() {
        return refuse(
            format!("{server} lacks roles: {}", plan.missing_roles.join(", ")),
            "--globals creates the roles of the set, with their passwords; --no-owner restores without owners and privileges",
        );
    }
    if let Some(refusal) = existing.and_then(|it| judge_existing(&plan.into, it, clean)) {
        return Some(refusal);
    }
    match (plan.database_bytes, plan.free_bytes) {
        (Some(needed), Some(free)) if needed > free => refuse(
            format!(
                "the database took {}, and {} may be used here: a twentieth of the volume is left to the server",
                ByteSize(needed),
                ByteSize(free)
            ),
            "make room on the volume of the data directory, or restore into another server (--target)",
        ),
        _ => None,
    }
}

/// Whether `what` a set leaves out are rows that the dumped server had itself.
pub(super) fn lacks_own_rows(what: &str) -> bool {
    what.starts_with("rows ") && !what.starts_with("rows of foreign tables")
}

/// Where the live database has rows that the set lacks: replacing it would lose them.
pub(super) fn lacked_rows(plan: &DumpRestorePlan) -> Refusal {
    Refusal {
        reason: format!(
            "{} lacks rows of {}: {}",
            plan.set,
            plan.database,
            plan.left_out.join("; ")
        ),
        hint:
            "restore it beside the live database (without --clean), and bring over what is missing"
                .to_owned(),
    }
}

/// Whether a database that is there under the wanted name stands in the way.
fn judge_existing(name: &str, existing: &Existing, clean: bool) -> Option<Refusal> {
    let refuse = |reason: String, hint: String| Some(Refusal { reason, hint });
    if !clean {
        return refuse(
            format!("there is a database {name} already"),
            "name another one with --into, or replace it with --clean".to_owned(),
        );
    }
    if !existing.held_by.is_empty() {
        return refuse(
            format!(
                "the database {name} cannot be dropped: {} uses it",
                existing.held_by.join(", ")
            ),
            "end that first, or restore under another name (--into)".to_owned(),
        );
    }
    if existing.sessions.is_empty() {
        return None;
    }
    let mut clients: Vec<&str> = existing.sessions.iter().map(String::as_str).collect();
    clients.sort_unstable();
    clients.dedup();
    refuse(
        format!(
            "{} sessions are connected to the database {name}: {}",
            existing.sessions.len(),
            clients.join(", ")
        ),
        format!(
            "stop the applications, and run PAUSE {name} on PgBouncer's console; pg_stat_activity shows who is left"
        ),
    )
}
