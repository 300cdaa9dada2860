//! `xdb backup push` and `xdb backup list`, and the way to `show`.

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::backup_show;
use super::exit::Exit;
use super::output::{say, table};
use crate::config::{Flag, Loaded};
use crate::jobs::base_backup;
use crate::model::{Lsn, Timeline};
use crate::repository::catalog::{Backup, Catalog, Delta, State, Tested, Window};
use crate::repository::{Look, Repository, RepositoryError, RepositoryHandle};
use crate::runner;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Take a base backup of this node's PostgreSQL and push it
    Push {
        /// A full backup, also where a delta would do
        #[arg(long)]
        full: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the backups: status, delta chains, sizes, from when to when each can be recovered
    List(List),
    /// Show one backup: its chain, its sizes, and on each timeline from when to when it can be recovered
    Show {
        /// Its name, or LATEST
        name: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Another repository than the configured one
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    repository: Option<String>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

impl Verb {
    /// Flags that are configuration.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        match self {
            Self::List(list) => super::repository_flag(list.repository.as_deref()),
            Self::Push { .. } | Self::Show { .. } => Vec::new(),
        }
    }
}

pub(crate) async fn run(verb: Verb, loaded: &Loaded) -> anyhow::Result<Exit> {
    match verb {
        Verb::Push { full, json } => {
            let repository = RepositoryHandle::new(&loaded.config);
            let push = base_backup::run(&loaded.config.node, &repository, full);
            let pushed = runner::run_once(loaded, &base_backup::JOB, push).await?;
            if json {
                say(serde_json::to_string_pretty(&pushed)?)?;
            } else {
                say(pushed)?;
            }
        }
        Verb::Show { name, json } => {
            return backup_show::show(loaded, &name, json).await;
        }
        Verb::List(list) => {
            let (repository, catalog) = read(loaded).await?;
            let listed: Vec<Listed> = catalog
                .backups
                .iter()
                .map(|backup| Listed::of(&catalog, backup))
                .collect();
            if list.json {
                say(serde_json::to_string_pretty(&listed)?)?;
            } else if listed.is_empty() {
                say(format_args!("no backup in {}", repository.location))?;
            } else {
                print_table(&listed)?;
            }
        }
    }
    Ok(Exit::Good)
}

pub(super) async fn read(loaded: &Loaded) -> Result<(Repository, Catalog), RepositoryError> {
    let repository = Repository::open(&loaded.config).await?;
    let (state, look) = (&loaded.config.node.state_directory, Look::Since(None));
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
pub(super) struct Listed {
    pub(super) name: String,
    /// `complete`, `incomplete` (the push never finished), `unusable` (the bucket lacks what it needs), `disproved` (a restore
    /// test failed) or `left` (by a promotion before it finished); see `reason`.
    pub(super) status: &'static str,
    pub(super) reason: Option<String>,
    /// What is wrong with it and does not keep it from being restored.
    pub(super) note: Option<&'static str>,
    pub(super) kind: &'static str,
    pub(super) delta_from: Option<String>,
    delta_full: Option<String>,
    /// How many deltas deep.
    delta_count: Option<u32>,
    pub(super) hostname: Option<String>,
    pub(super) timeline: Timeline,
    pub(super) start_lsn: Option<Lsn>,
    pub(super) finish_lsn: Option<Lsn>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) finished_at: Option<Timestamp>,
    /// What the backup alone takes in the bucket, and what its restore takes on disk.
    pub(super) compressed_bytes: Option<u64>,
    /// What its tar parts take, by the listing.
    stored_bytes: Option<u64>,
    pub(super) restored_bytes: Option<u64>,
    pub(super) pg_version: Option<u32>,
    pub(super) system_identifier: Option<u64>,
    pub(super) permanent: Option<bool>,
    /// The newest restore test that judged it.
    pub(super) test: Option<Tested>,
    window: Option<Window>,
}

impl Listed {
    pub(super) fn of(catalog: &Catalog, backup: &Backup) -> Self {
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

impl Listed {
    /// Why the newest restore test failed, where that is not the reason of its status.
    pub(super) fn failed_test(&self) -> Option<String> {
        let failure = self.test.as_ref()?.failure()?;
        let reason = self.reason.as_deref().unwrap_or_default();
        (!reason.contains(&failure)).then_some(failure)
    }
}

fn print_table(listed: &[Listed]) -> std::io::Result<()> {
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
