//! One restore test, from the look at the bucket to the removal of the scratch directory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::archive_end::what_stands_there;
use super::fetch::fetch;
use super::level::Level;
use super::live::Silent;
use super::preflight::{Found, preflight};
use super::report::{Conditions, Report, Step, secs};
use super::scratch::Scratch;
use super::setup::Setup;
use super::sync::sync_volume;
use super::until::Until;
use super::verify::{self, Recovered, SqlCheck};
use super::watch::beside;
use super::{RestoreError, links, stop_point, tablespaces};
use crate::model::{Lsn, Verdict};
use crate::postgres::{self, ControlData, PostgresError};
use crate::process;

/// How long a fast shutdown may take before the server is killed.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(60);
/// The same for a cluster that is kept: its last checkpoint writes all that the recovery left in memory.
pub(super) const SHUTDOWN_KEPT: Duration = Duration::from_secs(3600);

/// What of the configuration a single test may override.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The newest, or the last one before `until`, where `None`.
    pub backup: Option<String>,
    /// The configured one where `None`.
    pub level: Option<Level>,
    /// The configured directory where `None`.
    pub assertions: Option<PathBuf>,
    /// Leave what was restored where it is, its server shut down.
    pub keep: bool,
    /// Where the recovery stops; at the end of the archive where `None`.
    pub until: Option<Until>,
    /// `until` may be a mistyped time and no restore point: the WAL is searched for it first.
    pub is_guess: bool,
    pub sql: Vec<SqlCheck>,
}

/// Runs a restore test of the configured repository; `progress` gets each step when it ends.
///
/// Every test returns a report. Its processes and files are removed, unless it is kept.
pub async fn run(
    setup: &Setup,
    options: &Options,
    progress: &mut (dyn FnMut(&Step) + Send + Sync),
) -> Report {
    let settings = &setup.settings;
    let limit = settings.timeout;
    let configured = || Level::named(&settings.level);
    let deadline = Instant::now() + limit;
    let mut test = Test {
        setup,
        options,
        progress,
        report: Report {
            level: options.level.unwrap_or_else(configured),
            until: options.until.as_ref().map(Until::to_string),
            conditions: Some(Conditions::of(setup)),
            ..Report::default()
        },
        deadline,
        durable: false,
    };
    let outcome = timeout(limit, test.whole()).await;
    let outcome = outcome.unwrap_or(Err(RestoreError::Deadline { after: limit }));
    test.report.conclude(outcome)
}

/// A restore under way, for a test or for good.
pub(super) struct Test<'a> {
    pub setup: &'a Setup,
    pub options: &'a Options,
    pub progress: &'a mut (dyn FnMut(&Step) + Send + Sync),
    pub report: Report,
    pub deadline: Instant,
    /// The restored cluster is kept and must survive a power cut.
    pub durable: bool,
}

impl Test<'_> {
    async fn whole(&mut self) -> Result<(), RestoreError> {
        let setup = self.setup;
        refuse_root()?;
        let began = Instant::now();
        let live = setup.repository.data_directory();
        let mut scratch = Scratch::open(&setup.settings.directory, live)?;
        let mut found = preflight(setup, self.options, &scratch, &mut self.report).await?;
        self.refuse_foreign(&found)?;
        scratch.note(|marker| marker.backup = Some(found.plan.backup.name.clone()))?;
        self.step("preflight", began, None);
        // Dropped half-way, its children end with the scratch directory's processes.
        let outcome = beside(
            (setup.postgres(), &setup.settings),
            self.restore(&scratch, &mut found),
        )
        .await;
        let began = Instant::now();
        // A test that ended because the disk ran full must not keep its files there.
        let full = matches!(
            outcome,
            Err(RestoreError::Beside(_) | RestoreError::DiskFull { .. })
        );
        let removed = if self.options.keep && !full {
            let kept = scratch.keep();
            self.report.kept = kept.is_ok().then(|| scratch.path().to_owned());
            kept
        } else {
            scratch.remove()
        };
        self.step("tear_down", began, None);
        // The result of the test comes before an error of its removal.
        outcome.and(removed)
    }

    async fn restore(&mut self, scratch: &Scratch, found: &mut Found) -> Result<(), RestoreError> {
        let began = Instant::now();
        self.fetch(scratch, found).await?;
        self.step("fetch", began, Some(found.plan.fetch_bytes));
        let control = self.look_at_fetched(scratch, found).await?;

        let recover = Instant::now();
        let (server, recovered) = self.recover(scratch, found, &control).await?;
        self.settle_gaps(found, recovered.lsn);
        let replayed = recovered
            .lsn
            .0
            .saturating_sub(found.plan.sentinel.start_lsn.0);
        self.step("recover", recover, Some(replayed));
        if found.plan.until.is_none() {
            let path = &found.plan.path;
            self.report.wal_segments = Some(path.segments);
            self.report.wal_stored_bytes = Some(path.stored_bytes);
        }
        // PostgreSQL opens no sooner.
        self.report.looked("consistent", Verdict::Ok);
        // Its fsync is off: what the kernel still holds is no restored cluster yet.
        let sync = Instant::now();
        sync_volume(&scratch.data()).await?;
        self.step("sync", sync, None);
        self.report.rto_secs = Some(secs(began.elapsed()));
        self.judge_point(scratch, found, &recovered)?;
        if found.plan.until.is_none() {
            self.measure_from_stop(found, &recovered).await;
        }

        let verify = Instant::now();
        // What it is asked may run what the backup brought: functions, foreign tables.
        let settings = self.setup.postgres();
        let server = server.cut_off(scratch, settings, self.deadline).await?;
        let read = self.verify(scratch, found, &control, &recovered, server);
        let read = read.await?;
        self.step("verify", verify, read);
        Ok(())
    }

    /// Refuses a backup of another cluster in this cluster's repository, unless the repository was named by a flag.
    fn refuse_foreign(&self, found: &Found) -> Result<(), RestoreError> {
        let named = self.setup.is_other_repository;
        match &found.live {
            Err(Silent::Foreign(reason)) if !named => Err(RestoreError::Bad(format!(
                "{}: {reason}",
                found.plan.backup.name
            ))),
            _ => Ok(()),
        }
    }

    pub(super) async fn fetch(&self, scratch: &Scratch, found: &Found) -> Result<(), RestoreError> {
        fetch(self.setup, scratch, found, !self.durable, self.left()).await
    }

    /// Is what was fetched a whole cluster, and safe to start?
    pub(super) async fn look_at_fetched(
        &mut self,
        scratch: &Scratch,
        found: &Found,
    ) -> Result<ControlData, RestoreError> {
        tablespaces::judge_fetched(&scratch.data(), &found.plan.sentinel.tablespaces)?;
        let unreadable = |source| RestoreError::File {
            operation: "read",
            path: scratch.data(),
            source,
        };
        let label = std::fs::read_to_string(scratch.data().join("backup_label")).ok();
        let label = verify::judge_label(label.as_deref(), &found.plan.backup, &found.plan.sentinel);
        let mut whole = label == Verdict::Ok;
        self.report.looked("backup_label", label);
        if self.report.level >= Level::Check {
            let files = verify::restored_files(&scratch.data()).map_err(unreadable)?;
            let files = verify::judge_files(&found.listed, &files);
            whole &= !matches!(files, Verdict::Critical(_));
            self.report.looked("files", files);
        }
        let removed = links::clear(&scratch.data()).map_err(unreadable)?;
        self.report.remarked("links", links::judge(&removed));
        let bin = &self.setup.postgres().bin_directory;
        let control = postgres::control_data(bin, &scratch.data()).await;
        match control {
            Ok(control) if whole => Ok(control),
            Ok(_) => Err(RestoreError::Bad(
                "what was fetched is not whole".to_owned(),
            )),
            Err(error @ PostgresError::NotADataDirectory { .. }) => Err(RestoreError::Bad(
                format!("what was fetched is no data directory: {error}"),
            )),
            Err(error) => Err(error.into()),
        }
    }

    /// Revises the verdict on gaps in the listing that the recovery then passed.
    pub(super) fn settle_gaps(&mut self, found: &mut Found, recovered: Lsn) {
        if found.plan.settle_gaps(recovered, &found.catalog.wal) {
            self.report.looked_again("wal", found.plan.gaps.clone());
        }
    }

    /// Which cluster, which timeline, how far.
    pub(super) fn judge_point(
        &mut self,
        scratch: &Scratch,
        found: &Found,
        recovered: &Recovered,
    ) -> Result<(), RestoreError> {
        let server = &recovered.server;
        if server.data_directory != scratch.data() {
            return Err(RestoreError::Refused {
                reason: format!(
                    "the server that answers keeps its data in {}",
                    server.data_directory.display()
                ),
                hint: "something else listens on the scratch socket".to_owned(),
            });
        }
        let report = &mut self.report;
        report.system_identifier = Some(server.system_identifier);
        report.timeline = Some(recovered.timeline);
        report.recovered_lsn = Some(recovered.lsn);
        report.recovered_to = recovered.to;
        let backup = found.plan.sentinel.system_identifier;
        let live = found
            .live
            .as_ref()
            .ok()
            .map(|live| live.server.system_identifier);
        let identity = verify::judge_identity(server.system_identifier, backup, live);
        report.looked("system_identifier", identity);
        let path = &found.plan.path;
        // What it stops at may lie before the switch.
        let switched_at = path.switched_at.filter(|_| found.plan.until.is_none());
        let timeline = verify::judge_timeline(recovered, path.timeline, switched_at);
        report.looked("timeline", timeline);
        let end = match &found.plan.until {
            Some(Until::Lsn(target)) => {
                let (size, logged) = (found.catalog.wal.size, recovered.logged);
                let stop = || what_stands_there(found, recovered);
                stop_point::judge_lsn(recovered.lsn, logged, *target, size, stop)
            }
            Some(until) => stop_point::judge_time(recovered.to, until),
            None => Self::judge_archive_end(found, recovered),
        };
        report.looked("end_reached", end);
        Ok(())
    }

    pub(super) fn step(&mut self, name: &'static str, began: Instant, bytes: Option<u64>) {
        let step = Step {
            name,
            secs: secs(began.elapsed()),
            bytes,
        };
        (self.progress)(&step);
        self.report.steps.push(step);
    }

    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

pub(super) fn refuse_root() -> Result<(), RestoreError> {
    if !process::runs_as_root() {
        return Ok(());
    }
    Err(RestoreError::Refused {
        reason: "PostgreSQL cannot be started as root".to_owned(),
        hint: "run it as the database's user: runuser -u postgres -- xdb …".to_owned(),
    })
}
