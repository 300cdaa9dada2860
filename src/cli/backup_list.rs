//! `xdb backup list`: the backups of the repository, one line each.

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use super::handles::Handles;
use super::output::{say, table};
use crate::model::{Lsn, Timeline};
use crate::repository::catalog::{Backup, Catalog, Delta, State, Tested, Window};
use crate::repository::{Look, Repository, RepositoryError};

pub(crate) async fn read(handles: &Handles) -> Result<(Repository, Catalog), RepositoryError> {
    let repository = handles.repository.get().await?;
    let (state, look) = (&handles.config().node.state_directory, Look::Since(None));
    let mut catalog = repository
        .read_catalog(state, look, Timestamp::now())
        .await?;
    let mut windows = catalog.backups.iter().filter_map(|it| catalog.window(it));
    if windows.any(|window| window.gap.is_some()) {
        // What retention deleted on purpose is no gap.
        repository.know_pruned(&mut catalog).await?;
    }
    Ok((repository, catalog))
}

/// One backup as it is printed; `None` where an unfinished backup does not say.
#[derive(Debug, Serialize)]
pub(crate) struct BackupLine {
    pub(crate) name: String,
    /// `complete`, `incomplete` (the push never finished), `unusable` (the bucket lacks what it needs), `disproved` (a restore
    /// test failed) or `left` (by a promotion before it finished); see `reason`.
    pub(crate) status: &'static str,
    pub(crate) reason: Option<String>,
    /// What is wrong with it and does not keep it from being restored.
    pub(crate) note: Option<&'static str>,
    pub(crate) kind: &'static str,
    pub(crate) delta_from: Option<String>,
    delta_full: Option<String>,
    /// How many deltas deep.
    delta_count: Option<u32>,
    pub(crate) hostname: Option<String>,
    pub(crate) timeline: Timeline,
    pub(crate) start_lsn: Option<Lsn>,
    pub(crate) finish_lsn: Option<Lsn>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    /// What the backup alone takes in the bucket, and what its restore takes on disk.
    pub(crate) compressed_bytes: Option<u64>,
    /// What its tar parts take, by the listing.
    stored_bytes: Option<u64>,
    pub(crate) restored_bytes: Option<u64>,
    pub(crate) pg_version: Option<u32>,
    pub(crate) system_identifier: Option<u64>,
    pub(crate) permanent: Option<bool>,
    /// The newest restore test that judged it.
    pub(crate) test: Option<Tested>,
    window: Option<Window>,
}

impl BackupLine {
    pub(crate) fn of(catalog: &Catalog, backup: &Backup) -> Self {
        let sentinel = backup.sentinel.as_ref();
        let status = catalog.status(backup);
        let reachable = matches!(
            status.state,
            State::Complete | State::Disproved | State::Left
        );
        let delta: Option<&Delta> = sentinel.and_then(|sentinel| sentinel.delta.as_ref());
        let kind = match (sentinel, delta) {
            (None, _) if backup.name.contains("_D_") => "delta",
            (_, Some(_)) => "delta",
            _ => "full",
        };
        Self {
            name: backup.name.clone(),
            status: status.state.word(),
            window: reachable.then(|| catalog.window(backup)).flatten(),
            reason: status.reason,
            note: backup.lost_its_marks().then_some(
                "its metadata.json is missing, so a permanent mark is not ruled out: retention keeps it",
            ),
            kind,
            delta_from: delta.map(|delta| delta.from.clone()),
            delta_full: delta.map(|delta| delta.full.clone()),
            delta_count: delta.map(|delta| delta.count),
            hostname: sentinel.map(|sentinel| sentinel.hostname.clone()),
            timeline: backup.timeline,
            start_lsn: sentinel.map(|sentinel| sentinel.start_lsn),
            finish_lsn: sentinel.map(|sentinel| sentinel.finish_lsn),
            started_at: sentinel.and_then(|sentinel| sentinel.started_at),
            finished_at: backup.finished_at,
            compressed_bytes: sentinel.map(|sentinel| sentinel.compressed_size),
            stored_bytes: backup.stored.as_ref().map(|stored| stored.bytes),
            test: backup.tests.newest.clone(),
            restored_bytes: sentinel.map(|sentinel| sentinel.restored_size()),
            pg_version: sentinel.map(|sentinel| sentinel.pg_version),
            system_identifier: sentinel.and_then(|sentinel| sentinel.system_identifier),
            permanent: sentinel.map(|sentinel| sentinel.permanent),
        }
    }
}

impl BackupLine {
    /// Why the newest restore test failed, where that is not the reason of its status.
    pub(crate) fn failed_test(&self) -> Option<String> {
        let failure = self.test.as_ref()?.failure()?;
        let reason = self.reason.as_deref().unwrap_or_default();
        (!reason.contains(&failure)).then_some(failure)
    }
}

pub(crate) fn print_table(listed: &[BackupLine]) -> std::io::Result<()> {
    let size = |bytes: Option<u64>| {
        bytes.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string())
    };
    let time = |at: Option<Timestamp>| {
        at.map_or_else(|| "-".to_owned(), |at| at.strftime("%F %T").to_string())
    };
    let rows = listed.iter().map(|backup| {
        let window = backup.window.as_ref();
        vec![
            backup.name.clone(),
            backup.kind.to_owned(),
            backup.status.to_owned(),
            time(backup.finished_at),
            size(backup.compressed_bytes),
            size(backup.restored_bytes),
            window.map_or_else(
                || "-".to_owned(),
                |w| format!("{} (timeline {})", w.to_lsn, w.timeline),
            ),
            time(window.map(|window| window.to)),
        ]
    });
    let header = [
        "BACKUP",
        "KIND",
        "STATUS",
        "FINISHED (UTC)",
        "STORED",
        "RESTORED",
        "RECOVERABLE TO",
        "ARCHIVED (UTC)",
    ];
    say(table(&header, &[4, 5], rows).trim_fmt())?;
    for backup in listed {
        if let Some(reason) = &backup.reason {
            say(format_args!("{}: {reason}", backup.name))?;
        }
        if let Some(note) = backup.note {
            say(format_args!("{}: {note}", backup.name))?;
        }
        if let Some(failure) = backup.failed_test() {
            say(format_args!("{}: {failure}", backup.name))?;
        }
        let window = backup.window.as_ref();
        if window.is_some_and(|window| window.own_end_only) {
            say(format_args!(
                "{}: to its own end only; retention deleted what followed",
                backup.name
            ))?;
        }
        if let Some(gap) = window.and_then(|window| window.gap.as_ref()) {
            say(format_args!(
                "{}: WAL is missing: {gap}; what follows it cannot be reached",
                backup.name
            ))?;
        }
    }
    Ok(())
}
