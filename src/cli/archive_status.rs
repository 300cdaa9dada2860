//! `xdb archive status`: what waits on this node, and where the bucket leads.

use std::path::Path;

use bytesize::ByteSize;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::archive_verify::print_wrong;
use super::exit::{Exit, complain};
use super::output::say;
use crate::config::Config;
use crate::log;
use crate::model::{age, ago};
use crate::postgres::{WalDirectory, wal_directory};
use crate::repository::catalog::{Verified, Window};
use crate::repository::{Look, Repository, RepositoryError};

/// What `xdb archive status` prints; `None` is what could not be looked at.
#[derive(Debug, Serialize)]
struct ArchiveStatus {
    pending_files: Option<u64>,
    pending_bytes: Option<u64>,
    oldest_pending_secs: Option<f64>,
    /// `None` also where too little was written to tell.
    wal_bytes_per_sec: Option<f64>,
    free_bytes: Option<u64>,
    /// Should archiving stand still.
    full_in_secs: Option<f64>,
    /// Of the bucket: the segment that was stored last, and when.
    last_archived: Option<String>,
    last_archived_at: Option<Timestamp>,
    /// Where the newest backup leads.
    window: Option<Window>,
    /// The earliest moment that can be recovered to: the end of the oldest backup that can be restored.
    from: Option<Timestamp>,
    verified: Option<Verified>,
    /// Why something could not be looked at.
    unknown: Vec<String>,
}

pub(super) async fn status(
    config: &Config,
    repository: Result<Repository, RepositoryError>,
    json: bool,
    now: Timestamp,
) -> anyhow::Result<Exit> {
    let (data, state) = (
        &config.postgres.data_directory,
        &config.node.state_directory,
    );
    let local = wal_directory(data);
    let look = async { repository?.verify(state, Look::Since(None), now).await };
    let bucket = look.await;
    let mut unknown = Vec::new();
    if let Err(error) = &local {
        complain(&log::chain(error), Some(&error.hint()));
        unknown.push(log::chain(error));
    }
    if let Err(error) = &bucket {
        complain(&log::chain(error), Some(&error.hint()));
        unknown.push(log::chain(error));
    }
    let (local, bucket) = (local.ok(), bucket.ok());
    let mut status = ArchiveStatus::of_node(local.as_ref(), now);
    if let Some((catalog, verified)) = bucket {
        let restorable = |backup: &&_| catalog.is_complete(backup);
        let usable = catalog.backups.iter().filter(restorable);
        status.from = usable.filter_map(|backup| backup.finished_at).min();
        let newest = catalog.newest_to_judge();
        status.window = newest.and_then(|newest| catalog.window(newest));
        (status.last_archived, status.last_archived_at) = catalog.wal.last_stored().unzip();
        status.verified = Some(verified);
    }
    status.unknown = unknown;
    if json {
        say(serde_json::to_string_pretty(&status)?)?;
    } else {
        status.print(data, now)?;
    }
    let bad = status.verified.as_ref().is_some_and(|seen| !seen.is_good());
    Ok(match (bad, status.unknown.is_empty()) {
        (true, _) => Exit::Bad,
        (false, false) => Exit::CouldNot,
        (false, true) => Exit::Good,
    })
}

impl ArchiveStatus {
    fn of_node(local: Option<&WalDirectory>, now: Timestamp) -> Self {
        let oldest = local.and_then(|local| local.oldest_pending);
        let until_full = local.and_then(|local| local.until_full(now));
        Self {
            pending_files: local.map(|local| local.pending),
            pending_bytes: local.map(|local| local.pending_bytes),
            oldest_pending_secs: oldest.map(|at| age(at, now).as_secs_f64()),
            wal_bytes_per_sec: local.and_then(|local| local.bytes_per_sec(now)),
            free_bytes: local.map(|local| local.free_bytes),
            full_in_secs: until_full.map(|until| until.as_secs_f64()),
            last_archived: None,
            last_archived_at: None,
            window: None,
            from: None,
            verified: None,
            unknown: Vec::new(),
        }
    }

    fn print(&self, data_directory: &Path, now: Timestamp) -> std::io::Result<()> {
        let unknown = || "unknown".to_owned();
        let waiting = self.pending_files.zip(self.pending_bytes);
        let waiting = waiting.map_or_else(unknown, |(files, bytes)| {
            let oldest = self.oldest_pending_secs;
            let oldest =
                oldest.map_or_else(String::new, |secs| format!(", the oldest for {secs:.0} s"));
            format!("{files} files, {}{oldest}", ByteSize(bytes))
        });
        say(format_args!("waiting        {waiting}"))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate of bytes"
        )]
        let rate = self.wal_bytes_per_sec.map(|rate| ByteSize(rate as u64));
        let rate = rate.map_or_else(unknown, |rate| format!("{rate}/s"));
        say(format_args!("WAL written    {rate}"))?;
        let full = self.full_in_secs.map(SignedDuration::from_secs_f64);
        let full = full.map_or_else(unknown, |full| format!("{} h", full.as_hours()));
        let free = self
            .free_bytes
            .map_or_else(unknown, |free| ByteSize(free).to_string());
        say(format_args!(
            "volume         {free} free, full in {full} should archiving stand still"
        ))?;
        let last = self.last_archived.as_deref().zip(self.last_archived_at);
        let last = last.map_or_else(unknown, |(name, at)| format!("{name}, {}", ago(at, now)));
        say(format_args!("last archived  {last}"))?;
        let window = self.from.zip(self.window.as_ref());
        let window = window.map_or_else(
            || {
                if self.verified.is_some() {
                    "nothing".to_owned()
                } else {
                    unknown()
                }
            },
            |(from, to)| {
                let from = from.strftime("%F %T UTC");
                format!(
                    "from {from} to {} on timeline {}, archived {}",
                    to.to_lsn,
                    to.timeline,
                    ago(to.to, now)
                )
            },
        );
        say(format_args!("recoverable    {window}"))?;
        self.verified
            .as_ref()
            .map_or(Ok(()), |seen| print_wrong(data_directory, seen))
    }
}
