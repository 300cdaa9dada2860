//! The verifications of each level: queries to the restored server, and checks of its files after its shutdown.

use std::time::Duration;

use super::RestoreError;
use super::level::Level;
use super::live::{self, Silent};
use super::preflight::Found;
use super::run::{SHUTDOWN, Test};
use super::scratch::Scratch;
use super::server::ScratchServer;
use super::verify::{self, Counts, Database, Prepared, Recovered};
use crate::model::Verdict;
use crate::postgres::{self, ControlData, PostgresError, Server};

/// For one question to a cluster that is kept.
const ASKED: Duration = Duration::from_secs(30);

impl Test<'_> {
    /// Verifies what was recovered; returns the bytes of table data that were read, where they were.
    pub(super) async fn verify(
        &mut self,
        scratch: &Scratch,
        found: &Found,
        control: &ControlData,
        recovered: &Recovered,
        server: ScratchServer,
    ) -> Result<Option<u64>, RestoreError> {
        let level = self.report.level;
        let bin = &self.setup.postgres().bin_directory;
        let databases = self.open_databases(&server).await?;
        let mut bytes = None;
        if level == Level::Full {
            let read = verify::check_tables(&server, &databases).await;
            bytes = Some(read.bytes);
            self.report.looked_into("tables", read.look);
            let rows = self
                .compare_rows(found, control, recovered, &read.counts)
                .await;
            // A comparison that is not possible is reported, and fails no test.
            self.report.excused.push("row_counts");
            self.report.looked("row_counts", rows);
        }
        if level >= Level::Check {
            let every_row = level == Level::Full;
            let amcheck = verify::check_amcheck(&server, &databases, every_row).await;
            self.report.looked_into("amcheck", amcheck);
        }
        if level == Level::Full {
            self.ask_assertions(&server).await;
        }
        for check in &self.options.sql {
            let answer = verify::check_sql(&server, check, self.left()).await;
            self.report.looked(format!("sql: {}", check.query), answer);
        }
        server.shut_down(SHUTDOWN).await;
        if level >= Level::Check {
            if !control.checksums {
                self.report.excused.push("checksums");
            }
            let kept = control.checksums;
            let checksums =
                verify::check_checksums(bin, &scratch.data(), kept, self.left()).await?;
            self.report.looked("checksums", checksums);
        }
        Ok(bytes)
    }

    /// Lists the databases of the copy, reports those that cannot be checked, and rolls back prepared transactions, which
    /// hold locks.
    async fn open_databases(
        &mut self,
        server: &ScratchServer,
    ) -> Result<Vec<Database>, RestoreError> {
        let listed = list(server, Duration::ZERO, false).await;
        let (databases, prepared) = listed.map_err(verify::unasked)?;
        let rolled_back = verify::roll_back(server, &prepared).await;
        self.report.remarked("prepared_transactions", rolled_back);
        let node = verify::check_node(server, &databases, false).await;
        self.report.remarked("databases", node);
        Ok(databases)
    }

    /// Reports what this node lacks for the databases of a cluster that is kept, and its prepared transactions.
    ///
    /// The cluster is restored, so that a query that fails here is reported and ends no restore.
    pub(super) async fn look_at_kept(&mut self, server: &ScratchServer) {
        match list(server, ASKED, true).await {
            Ok((databases, prepared)) => {
                let prepared = verify::judge_prepared(&prepared);
                self.report.remarked("prepared_transactions", prepared);
                let node = verify::check_node(server, &databases, true).await;
                self.report.remarked("databases", node);
            }
            Err(error) => {
                let verdict = match verify::damage(&error) {
                    Some(words) => Verdict::Critical(format!("they cannot be listed: {words}")),
                    None => {
                        Verdict::Unknown(format!("what its databases need is unknown: {error}"))
                    }
                };
                self.report.looked("databases", verdict);
            }
        }
    }

    async fn ask_assertions(&mut self, server: &ScratchServer) {
        let configured = &self.setup.settings.assertions;
        let directory = self.options.assertions.as_ref().unwrap_or(configured);
        let assertions = match verify::read_assertions(directory) {
            Ok(assertions) => assertions,
            Err(error) => {
                let reason = format!("cannot read {}: {error}", directory.display());
                self.report.looked("assertions", Verdict::Unknown(reason));
                return;
            }
        };
        for assertion in assertions {
            let answer = verify::check_assertion(server, &assertion, self.left()).await;
            self.report
                .looked(format!("assertion: {}", assertion.file), answer);
        }
    }

    /// Compares the restored rows with the live server's, which may have changed since the preflight.
    async fn compare_rows(
        &self,
        found: &Found,
        control: &ControlData,
        recovered: &Recovered,
        counts: &Counts,
    ) -> Verdict {
        if let Err(silent) = &found.live {
            return Verdict::Unknown(silent.reason().to_owned());
        }
        let postgres = self.setup.postgres();
        let live = live::look(postgres).await;
        let comparable = live
            .as_ref()
            .map_err(Silent::reason)
            .map(|live| judge_comparable(&live.server, found, recovered));
        match comparable {
            Err(reason) => Verdict::Unknown(reason.to_owned()),
            Ok(Err(reason)) => Verdict::Unknown(reason),
            Ok(Ok(())) => verify::check_rows(&postgres.into(), counts, control.ended_before)
                .await
                .unwrap_or_else(|error| Verdict::Unknown(error.to_string())),
        }
    }
}

/// The databases of the copy, and the transactions that are prepared in it.
async fn list(
    server: &ScratchServer,
    limit: Duration,
    is_kept: bool,
) -> Result<(Vec<Database>, Vec<Prepared>), PostgresError> {
    let door = postgres::connect(&server.door(), limit).await?;
    let databases = verify::open_databases(&door, is_kept).await?;
    let prepared = verify::prepared(&door).await?;
    Ok((databases, prepared))
}

/// Whether the live server has all the history that was restored.
fn judge_comparable(live: &Server, found: &Found, recovered: &Recovered) -> Result<(), String> {
    let backup = &found.plan.backup;
    if let Some(reason) = found.catalog.why_left(backup) {
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
        Some(position) if position >= recovered.lsn => Ok(()),
        Some(position) => Err(format!(
            "the live server is at {position}, the restored copy at {}",
            recovered.lsn
        )),
        None => Err("the live server has replayed nothing yet".to_owned()),
    }
}
