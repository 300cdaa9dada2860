//! One restore test, from the preflight to the removal of the scratch directory.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::live_watch::beside;
use super::report::{Conditions, TestResult};
use super::test_level::TestLevel;
use crate::model::Verdict;
use crate::restore::plan::{Survey, Until, measure_rpo};
use crate::restore::recover::{Recovery, RecoveryEnd, refuse_root};
use crate::restore::scratch::{Scratch, sync_volume};
use crate::restore::verify::{SqlCheck, check_fetched, judge_recovered};
use crate::restore::{OnStep, RestoreError, Setup, secs};

/// What of the configuration a single test may override.
#[derive(Debug, Clone, Default)]
pub(crate) struct TestOptions {
    /// The newest, or the last one before `until`, where `None`.
    pub backup: Option<String>,
    /// The configured one where `None`.
    pub level: Option<TestLevel>,
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

/// Runs a restore test of the configured repository; `on_step` gets each step when it ends.
///
/// Every test returns a report. Its processes and files are removed, unless it is kept.
pub(crate) async fn run(setup: &Setup, options: &TestOptions, on_step: OnStep<'_>) -> TestResult {
    let settings = &setup.settings;
    let limit = settings.timeout;
    let configured = || TestLevel::named(&settings.level);
    let mut drill = Drill {
        options,
        recovery: Recovery::for_test(setup, Instant::now() + limit, on_step),
        report: TestResult {
            level: options.level.unwrap_or_else(configured),
            until: options.until.as_ref().map(Until::to_string),
            conditions: Some(Conditions::of(setup)),
            ..TestResult::default()
        },
    };
    let outcome = timeout(limit, drill.run()).await;
    let outcome = outcome.unwrap_or(Err(RestoreError::Deadline { after: limit }));
    let Recovery { record, steps, .. } = drill.recovery;
    drill.report.conclude(record, steps.into_list(), outcome)
}

/// A restore test under way.
pub(super) struct Drill<'a> {
    pub options: &'a TestOptions,
    pub recovery: Recovery<'a>,
    pub report: TestResult,
}

impl Drill<'_> {
    async fn run(&mut self) -> Result<(), RestoreError> {
        let setup = self.recovery.setup;
        refuse_root()?;
        let began = Instant::now();
        let live = setup.repository.data_directory();
        let mut scratch = Scratch::open(&setup.settings.directory, live)?;
        let mut survey = self.preflight(&scratch).await?;
        scratch.update_marker(|marker| marker.backup = Some(survey.plan.backup.name.clone()))?;
        self.recovery.steps.end("preflight", began, None);
        // Dropped half-way, its children end with the scratch directory's processes.
        let outcome = beside(
            (setup.postgres(), &setup.settings),
            self.restore(&scratch, &mut survey),
        )
        .await;
        let began = Instant::now();
        // A test that ended because the disk ran full must not keep its files there.
        let full = matches!(
            outcome,
            Err(RestoreError::LiveServerFirst(_) | RestoreError::DiskFull { .. })
        );
        let removed = if self.options.keep && !full {
            let kept = scratch.keep();
            self.report.kept = kept.is_ok().then(|| scratch.path().to_owned());
            kept
        } else {
            scratch.remove()
        };
        self.recovery.steps.end("tear_down", began, None);
        // The result of the test comes before an error of its removal.
        outcome.and(removed)
    }

    async fn restore(
        &mut self,
        scratch: &Scratch,
        survey: &mut Survey,
    ) -> Result<(), RestoreError> {
        let began = Instant::now();
        let settings = self.recovery.setup.postgres();
        self.recovery.fetch(scratch, survey).await?;
        let with_files = self.report.level >= TestLevel::Check;
        let control = check_fetched(
            &mut self.recovery.record.verifications,
            &settings.bin_directory,
            &scratch.data(),
            survey,
            with_files,
        )
        .await?;

        let (server, end) = self.recovery.recover(scratch, survey, &control).await?;
        if survey.plan.until.is_none() {
            let path = &survey.plan.path;
            self.report.wal_segments = Some(path.segments);
            self.report.wal_stored_bytes = Some(path.stored_bytes);
        }
        // PostgreSQL opens no sooner.
        let record = &mut self.recovery.record;
        record.verifications.add("consistent", Verdict::Ok);
        // Its fsync is off: what the kernel still holds is no restored cluster yet.
        let sync = Instant::now();
        sync_volume(&scratch.data()).await?;
        self.recovery.steps.end("sync", sync, None);
        self.report.rto_secs = Some(secs(began.elapsed()));
        judge_recovered(&mut self.recovery.record, scratch, survey, &end)?;
        if survey.plan.until.is_none() {
            self.measure_from_stop(survey, &end).await;
        }

        let verify = Instant::now();
        // The verifications may run what the backup brought: functions, foreign tables.
        let deadline = self.recovery.deadline;
        let server = server.cut_off(scratch, settings, deadline).await?;
        let read = self.verify(scratch, survey, &control, &end, server);
        let read = read.await?;
        self.recovery.steps.end("verify", verify, read);
        Ok(())
    }

    /// Measures the loss again from where the replay stopped, where that is before the end that the listing promised.
    async fn measure_from_stop(&mut self, survey: &Survey, end: &RecoveryEnd) {
        let reachable = survey.plan.path.reachable;
        let listed_end = reachable.map(|last| last.end(survey.catalog.wal.size));
        let (Ok(live), true) = (&survey.live, Some(end.lsn) < listed_end) else {
            return;
        };
        let bin = &self.recovery.setup.postgres().bin_directory;
        let measured = measure_rpo(bin, live, end.timeline, end.lsn).await;
        let verifications = &mut self.recovery.record.verifications;
        // Behind a record that continues in the next segment no commit was lost that was not counted.
        let is_end = verifications.verdict("end_reached") == Some(&Verdict::Ok);
        if is_end && measured.is_err() {
            return;
        }
        // A loss that the listing showed is kept.
        if let None | Some(Verdict::Critical(_)) = verifications.verdict("rpo") {
            return;
        }
        let verdict = match &measured {
            Ok(_) => Verdict::Ok,
            Err(reason) => Verdict::Unknown(reason.clone()),
        };
        verifications.revise("rpo", verdict);
        self.report.rpo_secs = measured.ok();
    }
}

/// How long a fast shutdown may take before the server is killed.
pub(super) const SHUTDOWN: Duration = Duration::from_secs(60);
