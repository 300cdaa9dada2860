//! The recovery of what was fetched: PostgreSQL replays the archive up to its end or the target.

use std::path::Path;
use std::time::Duration;

use secrecy::SecretString;

use super::configure::{Recovery, configure, restore_command};
use super::disaster::LIMIT;
use super::fetch::{NETWORK_LIMIT, is_full, network_limit};
use super::preflight::Found;
use super::run::{SHUTDOWN_KEPT, Test};
use super::scratch::Scratch;
use super::server::{Ended, ScratchServer};
use super::server_messages::is_damage;
use super::stop_point::{LoggedEnd, last_record, ran_out};
use super::until::{TargetSettings, Until, behind_record};
use super::verify::{self, Recovered};
use super::wal_prefetch::{Ahead, CONCURRENCY};
use super::wal_stop::StopSegment;
use super::{RestoreError, recovery_target, tablespaces};
use crate::archive::{AHEAD, COULD_NOT_LOOK, NOT_WANTED, SCRATCH};
use crate::model::{Lsn, WalSegment};
use crate::postgres::{self, ControlData};
use crate::repository::catalog::{decompressed, is_read};
use crate::repository::{RepositoryError, SEGMENT_SIZE, judge_file};

/// Limit of one query to a server that has just opened: on a disk that hangs, a restore for good would wait for ever.
const ASKED: Duration = Duration::from_secs(60);

impl Test<'_> {
    /// Recovers what was fetched to where the plan says.
    ///
    /// # Errors
    /// When the recovery fails, or the server that recovered refuses the login.
    pub(super) async fn recover(
        &self,
        scratch: &Scratch,
        found: &Found,
        control: &ControlData,
    ) -> Result<(ScratchServer, Recovered), RestoreError> {
        let target = found.plan.target.as_ref().map(Until::settings);
        let mut ended = self.recover_to(target, scratch, found, control).await?;
        if let Attempt::RanOut { last } = ended {
            // The archived bytes there show later whether the archive ends or is damaged. It may grow meanwhile.
            let target = Some(behind_record(last));
            ended = self.recover_to(target, scratch, found, control).await?;
        }
        let (server, mut recovered) = match ended {
            Attempt::Open(opened) => *opened,
            Attempt::RanOut { last } => {
                return Err(RestoreError::Server(format!(
                    "a second replay ended before the record at {last}"
                )));
            }
        };
        recovered.stop_segment = self.stop_segment(scratch, found, recovered.lsn).await;
        Ok((server, recovered))
    }

    async fn recover_to(
        &self,
        target: Option<TargetSettings>,
        scratch: &Scratch,
        found: &Found,
        control: &ControlData,
    ) -> Result<Attempt, RestoreError> {
        let xdb = std::env::current_exe().map_err(|source| RestoreError::File {
            operation: "find",
            path: "the running xdb".into(),
            source,
        })?;
        let recovery = Recovery {
            timeline: found.plan.path.timeline,
            target,
            restore_command: &restore_command(&xdb),
            durable: self.durable,
        };
        configure(scratch, control, &recovery)?;
        let mut environment = self.environment(scratch, found);
        let directory = scratch.path().join("ahead");
        let ahead = Ahead::start(self.setup, found, &directory, !self.durable);
        if ahead.is_some() {
            let directory = directory.to_string_lossy().into_owned();
            environment.push((AHEAD.to_owned(), directory.into()));
            // The program must not prefetch, too.
            let key = format!("XDB_ARCHIVE_SETTINGS_{CONCURRENCY}");
            environment.push((key, "1".to_owned().into()));
        }
        let settings = self.setup.postgres();
        let mut server = ScratchServer::start(scratch, settings, &environment, !self.durable)?;
        let reason = match server.wait_until_open(&scratch.log(), self.deadline).await {
            Ok(()) => {
                tablespaces::allow_links(&scratch.data(), true)?;
                let connection = postgres::connect(&server.door(), ASKED).await;
                let connection = connection.map_err(verify::unasked)?;
                tablespaces::clear_dropped(&connection, &scratch.data()).await?;
                let log = std::fs::read_to_string(scratch.log()).unwrap_or_default();
                let logged = LoggedEnd::parse(&log);
                let recovered = verify::recovered(&connection, &scratch.data(), logged).await;
                let recovered = recovered.map_err(verify::unasked)?;
                return Ok(Attempt::Open(Box::new((server, recovered))));
            }
            Err(Ended::TooSlow) if self.durable => return Err(RestoreError::Hung { after: LIMIT }),
            Err(Ended::TooSlow) => {
                let after = self.setup.settings.timeout;
                return Err(RestoreError::Deadline { after });
            }
            Err(Ended::Refused(reason)) => {
                if self.durable {
                    server.shut_down(SHUTDOWN_KEPT).await;
                }
                return Err(RestoreError::Closed { reason });
            }
            Err(Ended::Damaged(reason)) => {
                if self.durable {
                    server.shut_down(SHUTDOWN_KEPT).await;
                }
                return Err(RestoreError::Bad(reason));
            }
            Err(Ended::Killed(status)) => {
                return Err(RestoreError::Server(format!("it was killed, {status}")));
            }
            Err(Ended::Stopped(reason)) => reason,
        };
        self.judge_stopped(scratch, found, reason)
    }

    /// The environment that holds the configuration of `xdb wal-fetch`.
    fn environment(&self, scratch: &Scratch, found: &Found) -> Vec<(String, SecretString)> {
        let mut environment = self.setup.environment.clone();
        // wal-fetch has no use for it, and restored code runs in that server.
        environment.retain(|(name, _)| name != "XDB_POSTGRES_PASSWORD");
        // The live server's prefetch directory must be neither read nor filled by this restore.
        let own = scratch.path().to_string_lossy().into_owned();
        environment.push((SCRATCH.to_owned(), "1".to_owned().into()));
        environment.push((
            "XDB_ARCHIVE_SETTINGS_WALG_PREFETCH_DIR".to_owned(),
            own.into(),
        ));
        let size = found.catalog.wal.size.mebibytes().to_string();
        let key = format!("XDB_ARCHIVE_SETTINGS_{SEGMENT_SIZE}");
        environment.push((key, size.into()));
        let wal = &found.catalog.wal;
        let first_missing = found.plan.path.missing.first();
        let first_missing = first_missing.map(|gap| gap.ends(wal.size).0);
        if let Some(name) = first_missing.filter(|name| wal.damaged.contains_key(name)) {
            // To PostgreSQL the archive ends before it.
            environment.push((NOT_WANTED.to_owned(), name.into()));
        }
        if let Some(limit) = network_limit(&self.setup.settings).filter(|_| !self.durable) {
            let key = format!("XDB_ARCHIVE_SETTINGS_{NETWORK_LIMIT}");
            environment.push((key, limit.into()));
        }
        environment
    }

    /// Judges why the server ended for `reason` before the end of its recovery.
    fn judge_stopped(
        &self,
        scratch: &Scratch,
        found: &Found,
        reason: String,
    ) -> Result<Attempt, RestoreError> {
        if is_full(scratch.path(), found) {
            return Err(RestoreError::DiskFull {
                doing: "WAL was replayed",
            });
        }
        if let Some(refused) = tablespaces::refusal(&reason) {
            return Err(refused);
        }
        if reason.contains(COULD_NOT_LOOK) {
            return Err(RestoreError::StorageLost {
                doing: "WAL was replayed",
                words: reason,
            });
        }
        if let Some(until) = &found.plan.until {
            let log = std::fs::read_to_string(scratch.log()).unwrap_or_default();
            if let (Until::Lsn(_), true) = (until, ran_out(&reason))
                && let Some(last) = last_record(&log)
            {
                return Ok(Attempt::RanOut { last });
            }
            if let Some(unreachable) = recovery_target::not_reached(&reason, &log, until) {
                return Err(unreachable);
            }
        }
        if !is_damage(&reason) {
            return Err(RestoreError::Server(reason));
        }
        Err(RestoreError::Bad(format!(
            "PostgreSQL could not recover: {reason}"
        )))
    }

    /// The archived copy of the segment that the replay stopped in, at `recovered`. It is fetched again where PostgreSQL did
    /// not keep it. `None` where the archive lists no WAL past `recovered`.
    async fn stop_segment(
        &self,
        scratch: &Scratch,
        found: &Found,
        recovered: Lsn,
    ) -> Option<StopSegment> {
        let (path, wal) = (&found.plan.path, &found.catalog.wal);
        path.newest.filter(|last| recovered < last.end(wal.size))?;
        // Of a segment that several timelines have, PostgreSQL takes the newest.
        let timelines = wal.runs.range(found.plan.backup.timeline..=path.timeline);
        let of = |timeline| WalSegment::holding(timeline, recovered, wal.size);
        let segments: Vec<_> = timelines.rev().map(|(timeline, _)| of(*timeline)).collect();
        let kept = |segment: &WalSegment| {
            let name = segment.name(wal.size);
            scratch.data().join("pg_wal").join(name)
        };
        if let Some(kept) = segments.iter().map(kept).find(|kept| kept.exists()) {
            return Some(StopSegment::Here(kept));
        }
        let mut listed = segments
            .iter()
            .filter(|segment| wal.get(**segment).is_some());
        // A segment that was not listed was a gap then; the recovery passed it.
        let segment = listed.next().or(segments.first())?;
        let name = segment.name(wal.size);
        let fetched = self.fetch_again(scratch, found, &name).await;
        Some(fetched.unwrap_or_else(|error| StopSegment::Unread(crate::log::chain(&error))))
    }

    async fn fetch_again(
        &self,
        scratch: &Scratch,
        found: &Found,
        name: &str,
    ) -> Result<StopSegment, RepositoryError> {
        let stored = found.repository.stored_as(name).await?;
        let Some(object) = stored.first() else {
            let reason = format!("the bucket holds no {name} any more");
            return Ok(StopSegment::Unread(reason));
        };
        if self.setup.repository.program.encrypts() || !is_read(&object.key) {
            let reason = format!("xdb cannot decode {}", object.key);
            return Ok(StopSegment::Unread(reason));
        }
        let bytes = found.repository.bucket.get(&object.key).await?;
        let cluster = found.plan.sentinel.system_identifier;
        Ok(keep_unpacked(
            &object.key,
            name,
            &bytes,
            cluster,
            scratch.path(),
        ))
    }
}

/// Unpacks the object `key`, whose content is `stored`, to the segment `name` in `directory`. Only content that was read and
/// is wrong is damage.
fn keep_unpacked(
    key: &str,
    name: &str,
    stored: &[u8],
    cluster: Option<u64>,
    directory: &Path,
) -> StopSegment {
    let content = match decompressed(key, stored) {
        Ok(content) => content,
        Err(reason) => return StopSegment::Damaged(format!("{name}: {reason}")),
    };
    let path = directory.join(name);
    if let Err(error) = std::fs::write(&path, content) {
        return StopSegment::Unread(format!("cannot write {}: {error}", path.display()));
    }
    match judge_file(name, &path, cluster) {
        Ok(()) => StopSegment::Here(path),
        Err(reason) => StopSegment::Damaged(format!("{name}: {reason}")),
    }
}

/// A recovery that did not fail.
enum Attempt {
    Open(Box<(ScratchServer, Recovered)>),
    /// Before the LSN that was its target: the record at `last` is the last one of the archive.
    RanOut {
        last: Lsn,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_arrived_and_is_wrong_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let name = "000000010000000000000003";
        let keep = |key: &str, stored: &[u8], directory: &Path| {
            keep_unpacked(key, name, stored, None, directory)
        };
        for (key, stored) in [("w/3", &b"no segment"[..]), ("w/3.lz4", b"no frame")] {
            let kept = keep(key, stored, directory.path());
            assert!(matches!(kept, StopSegment::Damaged(_)), "{key}: {kept:?}");
        }
        let kept = keep("w/3", b"x", &directory.path().join("gone"));
        assert!(matches!(kept, StopSegment::Unread(_)), "{kept:?}");
    }
}
