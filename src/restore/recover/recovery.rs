//! The engine of every restore: it fetches a backup, starts a server on it and waits until that has recovered.
//!
//! A restore test throws the cluster away and yields to the live server; `xdb restore` keeps it, durably.

use std::time::{Duration, Instant};

use secrecy::SecretString;

use super::configure::{RecoverySettings, configure, restore_command};
use super::fetch::{NETWORK_LIMIT, fetch, is_full, network_limit};
use super::recovery_end::{LoggedEnd, RecoveryEnd, last_record, read_recovery_end};
use super::server::{ScratchServer, StartFailure};
use super::server_errors::query_failure;
use super::server_messages::{
    ended_before_target, is_damage, tablespace_refusal, target_not_reached,
};
use super::stop_segment::find_stop_segment;
use super::wal_prefetch::{CONCURRENCY, WalPrefetch};
use crate::archive::{AHEAD, COULD_NOT_LOOK, NOT_WANTED, SCRATCH};
use crate::model::Lsn;
use crate::postgres::{self, ControlData};
use crate::repository::SEGMENT_SIZE;
use crate::restore::plan::{Survey, TargetSettings, Until, behind_record};
use crate::restore::scratch::{Scratch, allow_tablespace_links, remove_dropped_tablespaces};
use crate::restore::{OnStep, RestoreError, RestoreRecord, Setup, Steps};

/// Ends a restore for good that hangs. A restore that makes progress is never this slow.
const LIMIT_KEPT: Duration = Duration::from_secs(14 * 24 * 3600);
/// How long the last checkpoint of a cluster that is kept may take: it writes all that the recovery left in memory.
pub(crate) const SHUTDOWN_KEPT: Duration = Duration::from_secs(3600);
/// Limit of one query to a server that has just opened: on a disk that hangs, a restore for good would wait for ever.
const QUERY_LIMIT: Duration = Duration::from_secs(60);

/// A restore under way.
pub(crate) struct Recovery<'a> {
    pub setup: &'a Setup,
    pub deadline: Instant,
    /// The restored cluster is kept and must survive a power cut.
    durable: bool,
    pub steps: Steps<'a>,
    pub record: RestoreRecord,
}

impl<'a> Recovery<'a> {
    /// One for a test, which ends at `deadline` and yields to the live server.
    pub(crate) fn for_test(setup: &'a Setup, deadline: Instant, on_step: OnStep<'a>) -> Self {
        Self {
            setup,
            deadline,
            durable: false,
            steps: Steps::new(on_step),
            record: RestoreRecord::default(),
        }
    }

    /// One for a cluster that is kept; `record` is of its plan.
    pub(crate) fn for_kept_cluster(
        setup: &'a Setup,
        record: RestoreRecord,
        on_step: OnStep<'a>,
    ) -> Self {
        Self {
            setup,
            deadline: Instant::now() + LIMIT_KEPT,
            durable: true,
            steps: Steps::new(on_step),
            record,
        }
    }

    pub(crate) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Fetches the backup that `survey` planned.
    ///
    /// # Errors
    /// As [`fetch`].
    pub(crate) async fn fetch(
        &mut self,
        scratch: &Scratch,
        survey: &Survey,
    ) -> Result<(), RestoreError> {
        let began = Instant::now();
        fetch(self.setup, scratch, survey, !self.durable, self.left()).await?;
        self.steps
            .end("fetch", began, Some(survey.plan.fetch_bytes));
        Ok(())
    }

    /// Recovers what was fetched to where the plan says; the server that is returned is promoted and open.
    ///
    /// # Errors
    /// When the recovery fails, or the server that recovered refuses the login.
    pub(crate) async fn recover(
        &mut self,
        scratch: &Scratch,
        survey: &mut Survey,
        control: &ControlData,
    ) -> Result<(ScratchServer, RecoveryEnd), RestoreError> {
        let began = Instant::now();
        let target = survey.plan.target.as_ref().map(Until::settings);
        let mut replay = self.replay(target, scratch, survey, control).await?;
        if let Replay::RanOut { last } = replay {
            // The archived bytes there show later whether the archive ends or is damaged. It may grow meanwhile.
            let target = Some(behind_record(last));
            replay = self.replay(target, scratch, survey, control).await?;
        }
        let (server, mut end) = match replay {
            Replay::Open(opened) => *opened,
            Replay::RanOut { last } => {
                return Err(RestoreError::Server(format!(
                    "a second replay ended before the record at {last}"
                )));
            }
        };
        end.stop_segment = find_stop_segment(scratch, survey, end.lsn).await;
        // The listing may have shown gaps that the recovery then passed.
        if survey.plan.drop_passed_gaps(end.lsn, &survey.catalog.wal) {
            let gaps = survey.plan.gaps.clone();
            self.record.verifications.revise("wal", gaps);
        }
        let start = survey.plan.sentinel.start_lsn;
        let replayed = end.lsn.0.saturating_sub(start.0);
        self.steps.end("recover", began, Some(replayed));
        Ok((server, end))
    }

    async fn replay(
        &self,
        target: Option<TargetSettings>,
        scratch: &Scratch,
        survey: &Survey,
        control: &ControlData,
    ) -> Result<Replay, RestoreError> {
        let (_prefetch, mut server) = self.start(target, scratch, survey, control)?;
        let reason = match server.wait_until_open(&scratch.log(), self.deadline).await {
            Ok(()) => {
                allow_tablespace_links(&scratch.data(), true)?;
                let connection = postgres::connect(&server.accepting_target(), QUERY_LIMIT).await;
                let connection = connection.map_err(query_failure)?;
                remove_dropped_tablespaces(&connection, &scratch.data()).await?;
                let log = std::fs::read_to_string(scratch.log()).unwrap_or_default();
                let logged = LoggedEnd::parse(&log);
                let end = read_recovery_end(&connection, &scratch.data(), logged).await;
                return Ok(Replay::Open(Box::new((
                    server,
                    end.map_err(query_failure)?,
                ))));
            }
            Err(StartFailure::TooSlow) if self.durable => {
                return Err(RestoreError::TimedOut { after: LIMIT_KEPT });
            }
            Err(StartFailure::TooSlow) => {
                let after = self.setup.settings.timeout;
                return Err(RestoreError::Deadline { after });
            }
            Err(StartFailure::Refused(reason)) => {
                self.stop_if_kept(server).await;
                return Err(RestoreError::LoginRefused { reason });
            }
            Err(StartFailure::Damaged(reason)) => {
                self.stop_if_kept(server).await;
                return Err(RestoreError::Bad(reason));
            }
            Err(StartFailure::Killed(status)) => {
                return Err(RestoreError::Server(format!("it was killed, {status}")));
            }
            Err(StartFailure::Stopped(reason)) => reason,
        };
        judge_stopped(scratch, survey, reason)
    }

    async fn stop_if_kept(&self, server: ScratchServer) {
        if self.durable {
            server.shut_down(SHUTDOWN_KEPT).await;
        }
    }

    /// Starts the server on what was fetched, and the fetch of WAL ahead of its replay.
    fn start(
        &self,
        target: Option<TargetSettings>,
        scratch: &Scratch,
        survey: &Survey,
        control: &ControlData,
    ) -> Result<(Option<WalPrefetch>, ScratchServer), RestoreError> {
        let xdb = std::env::current_exe().map_err(|source| RestoreError::File {
            operation: "find",
            path: "the running xdb".into(),
            source,
        })?;
        let recovery = RecoverySettings {
            timeline: survey.plan.path.timeline,
            target,
            restore_command: &restore_command(&xdb),
            durable: self.durable,
        };
        configure(scratch, control, &recovery)?;
        let mut environment = self.environment(scratch, survey);
        let directory = scratch.path().join("ahead");
        let prefetch = WalPrefetch::start(self.setup, survey, &directory, !self.durable);
        if prefetch.is_some() {
            let directory = directory.to_string_lossy().into_owned();
            environment.push((AHEAD.to_owned(), directory.into()));
            // The program must not prefetch, too.
            let key = format!("XDB_ARCHIVE_SETTINGS_{CONCURRENCY}");
            environment.push((key, "1".to_owned().into()));
        }
        let settings = self.setup.postgres();
        let server = ScratchServer::start(scratch, settings, &environment, !self.durable)?;
        Ok((prefetch, server))
    }

    /// The environment that holds the configuration of `xdb wal-fetch`.
    fn environment(&self, scratch: &Scratch, survey: &Survey) -> Vec<(String, SecretString)> {
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
        let size = survey.catalog.wal.size.mebibytes().to_string();
        let key = format!("XDB_ARCHIVE_SETTINGS_{SEGMENT_SIZE}");
        environment.push((key, size.into()));
        let wal = &survey.catalog.wal;
        let first_missing = survey.plan.path.missing.first();
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
}

/// Judges why the server ended for `reason` before the end of its recovery.
fn judge_stopped(
    scratch: &Scratch,
    survey: &Survey,
    reason: String,
) -> Result<Replay, RestoreError> {
    if is_full(scratch.path(), survey) {
        return Err(RestoreError::DiskFull {
            doing: "WAL was replayed",
        });
    }
    if let Some(refused) = tablespace_refusal(&reason) {
        return Err(refused);
    }
    if reason.contains(COULD_NOT_LOOK) {
        return Err(RestoreError::StorageLost {
            doing: "WAL was replayed",
            message: reason,
        });
    }
    if let Some(until) = &survey.plan.until {
        let log = std::fs::read_to_string(scratch.log()).unwrap_or_default();
        if let (Until::Lsn(_), true) = (until, ended_before_target(&reason))
            && let Some(last) = last_record(&log)
        {
            return Ok(Replay::RanOut { last });
        }
        if let Some(unreachable) = target_not_reached(&reason, &log, until) {
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

/// A recovery that did not fail.
enum Replay {
    Open(Box<(ScratchServer, RecoveryEnd)>),
    /// Before the LSN that was its target: the record at `last` is the last one of the archive.
    RanOut {
        last: Lsn,
    },
}
