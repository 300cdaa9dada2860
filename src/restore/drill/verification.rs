//! The verifications of each level: queries to the restored server, and checks of its files after its shutdown.

use std::time::Duration;

use super::report::Unchecked;
use super::run::{Drill, SHUTDOWN};
use super::test_level::TestLevel;
use crate::model::Verdict;
use crate::postgres::{ControlData, ServerIdentity};
use crate::restore::plan::{NoLiveServer, Survey, read_live_server};
use crate::restore::recover::{RecoveryEnd, ScratchServer, query_failure};
use crate::restore::scratch::Scratch;
use crate::restore::verify::{
    CopiedDatabase, ObjectFindings, RestoredRows, check_amcheck, check_assertion, check_checksums,
    check_node, check_rows, check_sql, check_tables, list_databases, read_assertions, roll_back,
};
use crate::restore::{RestoreError, Verifications};

impl Drill<'_> {
    /// Verifies what was recovered; returns the bytes of table data that were read, where they were.
    pub(super) async fn verify(
        &mut self,
        scratch: &Scratch,
        survey: &Survey,
        control: &ControlData,
        end: &RecoveryEnd,
        server: ScratchServer,
    ) -> Result<Option<u64>, RestoreError> {
        let level = self.report.level;
        let bin = &self.recovery.setup.postgres().bin_directory;
        let databases = self.open_databases(&server).await?;
        let mut bytes = None;
        if level == TestLevel::Full {
            let read = check_tables(&server, &databases).await;
            bytes = Some(read.bytes);
            self.add_findings("tables", read.findings);
            let rows = self.compare_rows(survey, control, end, &read.counts).await;
            // A comparison that is not possible is reported, and fails no test.
            self.verifications().excuse("row_counts");
            self.verifications().add("row_counts", rows);
        }
        if level >= TestLevel::Check {
            let every_row = level == TestLevel::Full;
            let amcheck = check_amcheck(&server, &databases, every_row).await;
            self.add_findings("amcheck", amcheck);
        }
        if level == TestLevel::Full {
            self.check_assertions(&server).await;
        }
        for check in &self.options.sql {
            let answer = check_sql(&server, check, self.recovery.left()).await;
            self.verifications()
                .add(format!("sql: {}", check.query), answer);
        }
        server.shut_down(SHUTDOWN).await;
        if level >= TestLevel::Check {
            if !control.checksums {
                self.verifications().excuse("checksums");
            }
            let kept = control.checksums;
            let checksums =
                check_checksums(bin, &scratch.data(), kept, self.recovery.left()).await?;
            self.verifications().add("checksums", checksums);
        }
        Ok(bytes)
    }

    fn verifications(&mut self) -> &mut Verifications {
        &mut self.recovery.record.verifications
    }

    /// Adds a verification of many objects, and lists those that could not be checked.
    fn add_findings(&mut self, verification: &'static str, findings: ObjectFindings) {
        self.verifications().add(verification, findings.verdict());
        let unchecked = findings.into_unchecked().into_iter();
        let unchecked = unchecked.map(|what| Unchecked { verification, what });
        self.report.not_looked_at.extend(unchecked);
    }

    /// Lists the databases of the copy, reports those that cannot be checked, and rolls back prepared transactions, which
    /// hold locks.
    async fn open_databases(
        &mut self,
        server: &ScratchServer,
    ) -> Result<Vec<CopiedDatabase>, RestoreError> {
        let listed = list_databases(server, Duration::ZERO, false).await;
        let (databases, prepared) = listed.map_err(query_failure)?;
        let rolled_back = roll_back(server, &prepared).await;
        self.verifications()
            .add_unless_ok("prepared_transactions", rolled_back);
        let node = check_node(server, &databases, false).await;
        self.verifications().add_unless_ok("databases", node);
        Ok(databases)
    }

    async fn check_assertions(&mut self, server: &ScratchServer) {
        let configured = &self.recovery.setup.settings.assertions;
        let directory = self.options.assertions.as_ref().unwrap_or(configured);
        let assertions = match read_assertions(directory) {
            Ok(assertions) => assertions,
            Err(error) => {
                let reason = format!("cannot read {}: {error}", directory.display());
                self.verifications()
                    .add("assertions", Verdict::Unknown(reason));
                return;
            }
        };
        for assertion in assertions {
            let answer = check_assertion(server, &assertion, self.recovery.left()).await;
            self.verifications()
                .add(format!("assertion: {}", assertion.file), answer);
        }
    }

    /// Compares the restored rows with the live server's, which may have changed since the preflight.
    async fn compare_rows(
        &self,
        survey: &Survey,
        control: &ControlData,
        end: &RecoveryEnd,
        counts: &RestoredRows,
    ) -> Verdict {
        if let Err(silent) = &survey.live {
            return Verdict::Unknown(silent.reason().to_owned());
        }
        let postgres = self.recovery.setup.postgres();
        let live = read_live_server(postgres).await;
        let comparable = live
            .as_ref()
            .map_err(NoLiveServer::reason)
            .map(|live| judge_comparable(&live.server, survey, end));
        match comparable {
            Err(reason) => Verdict::Unknown(reason.to_owned()),
            Ok(Err(reason)) => Verdict::Unknown(reason),
            Ok(Ok(())) => check_rows(&postgres.into(), counts, control.ended_before)
                .await
                .unwrap_or_else(|error| Verdict::Unknown(error.to_string())),
        }
    }
}

/// Whether the live server has all the history that was restored.
fn judge_comparable(
    live: &ServerIdentity,
    survey: &Survey,
    end: &RecoveryEnd,
) -> Result<(), String> {
    let backup = &survey.plan.backup;
    if let Some(reason) = survey.catalog.why_superseded(backup) {
        return Err(format!(
            "the backup is of another history than the live server: {reason}"
        ));
    }
    if live.timeline < backup.timeline {
        return Err(format!(
            "the live server is on timeline {}, the backup on {}",
            live.timeline, backup.timeline
        ));
    }
    match live.position {
        Some(position) if position >= end.lsn => Ok(()),
        Some(position) => Err(format!(
            "the live server is at {position}, the restored copy at {}",
            end.lsn
        )),
        None => Err("the live server has replayed nothing yet".to_owned()),
    }
}
