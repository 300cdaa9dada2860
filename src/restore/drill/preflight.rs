//! What a restore test judges before anything is fetched: the live server, the end of the archive, the programs, the disk.

use super::live_watch::may_begin;
use super::run::Drill;
use crate::model::Verdict;
use crate::restore::RestoreError;
use crate::restore::plan::{
    NoLiveServer, Pick, Survey, check_parts, check_restore_point, check_version, measure_rpo,
    survey,
};
use crate::restore::scratch::{Scratch, judge_space};
use crate::restore::verify::judge_last_archived;

impl Drill<'_> {
    /// Decides what is restored and whether it may be.
    ///
    /// # Errors
    /// When there is nothing to restore, it would be dangerous, or it cannot be done here.
    pub(super) async fn preflight(&mut self, scratch: &Scratch) -> Result<Survey, RestoreError> {
        let (setup, options) = (self.recovery.setup, self.options);
        let until = options.until.as_ref();
        let request = (options.backup.as_deref(), Pick::Newest);
        let mut found = survey(setup, request, until, &mut self.recovery.record).await?;
        may_begin(
            (setup.postgres(), &setup.settings),
            found.live.as_ref().ok(),
        )?;
        // The end of the archive is of no interest to a test that stops before.
        if until.is_none() {
            self.check_end_of_archive(&found).await;
        }
        if options.is_guess {
            check_restore_point(&found, until).await?;
        }
        check_version(&setup.postgres().bin_directory, &found.plan).await?;
        let live = setup.repository.data_directory();
        judge_space(
            found.plan.needed_bytes,
            scratch.path(),
            live,
            scratch.kept(),
        )?;
        check_parts(&mut found, &mut self.recovery.record.verifications).await?;
        self.refuse_foreign(&found)?;
        Ok(found)
    }

    async fn check_end_of_archive(&mut self, survey: &Survey) {
        let verifications = &mut self.recovery.record.verifications;
        let verdict = judge_last_archived(&survey.live, &survey.catalog);
        verifications.add("archive_end", verdict);
        match &survey.live {
            Err(none) if none.is_nothing() => {
                verifications.excuse("archive_end");
                verifications.excuse("rpo");
            }
            Err(_) => {}
            // A server may have removed the WAL that it takes to measure the loss: of an old backup, no WAL follows in the
            // archive. That is no fault of the backup.
            Ok(_) => verifications.excuse("rpo"),
        }
        self.measure_loss(survey).await;
    }

    /// What would be lost now: measured against the archive as it was listed, before the restore lets it grow.
    async fn measure_loss(&mut self, survey: &Survey) {
        let (plan, verifications) = (&survey.plan, &mut self.recovery.record.verifications);
        let (live, end) = match (&survey.live, plan.path.reachable) {
            (Ok(live), Some(last)) => (live, last.end(survey.catalog.wal.size)),
            (Ok(_), None) => return,
            (Err(none), _) => {
                verifications.add("rpo", Verdict::Unknown(none.reason().to_owned()));
                return;
            }
        };
        if live.server.timeline > plan.path.timeline {
            let (newer, archived) = (live.server.timeline, plan.path.timeline);
            let reason = format!(
                "the live server is on timeline {newer}, the archive can be followed to timeline {archived} only"
            );
            verifications.add("rpo", Verdict::Critical(reason));
            return;
        }
        let bin = &self.recovery.setup.postgres().bin_directory;
        let measured = measure_rpo(bin, live, plan.path.timeline, end).await;
        self.report.rpo_secs = measured.as_ref().ok().copied();
        verifications.add(
            "rpo",
            measured.map_or_else(Verdict::Unknown, |_| Verdict::Ok),
        );
    }

    /// Refuses a backup of another cluster in this cluster's repository, unless the repository was named by a flag.
    fn refuse_foreign(&self, survey: &Survey) -> Result<(), RestoreError> {
        let named = self.recovery.setup.is_other_repository;
        match &survey.live {
            Err(NoLiveServer::Foreign(reason)) if !named => Err(RestoreError::Bad(format!(
                "{}: {reason}",
                survey.plan.backup.name
            ))),
            _ => Ok(()),
        }
    }
}
