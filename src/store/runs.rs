//! The history of jobs.

use rusqlite::{OptionalExtension, Row, params};

use super::{Reading, StoreError, Writing, query, time};
use crate::model::{Run, Verdict};

/// As many runs of each job are kept.
pub const KEPT_RUNS: u32 = 1000;

impl Reading<'_> {
    /// The last runs of `job`, or of all jobs; newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn runs(&self, job: Option<&str>, limit: u32) -> Result<Vec<Run>, StoreError> {
        let read = query("read the runs in");
        let collect = || {
            let mut statement = self.0.prepare(
                "SELECT job, target, started_us, finished_us, verdict, reason, succeeded, detail
                 FROM runs WHERE ?1 IS NULL OR job = ?1 ORDER BY id DESC LIMIT ?2",
            )?;
            let rows = statement.query_map(params![job, limit], raw_run)?;
            rows.collect::<Result<Vec<_>, _>>()
        };
        collect()
            .map_err(read)?
            .into_iter()
            .map(RawRun::parse)
            .collect()
    }

    /// The last run of `job` that did its work, among those that are kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last_good_run(&self, job: &str) -> Result<Option<Run>, StoreError> {
        let run = self
            .0
            .query_row(
                "SELECT job, target, started_us, finished_us, verdict, reason, succeeded, detail
                 FROM runs WHERE job = ?1 AND succeeded ORDER BY id DESC LIMIT 1",
                [job],
                raw_run,
            )
            .optional();
        run.map_err(query("read the runs in"))?
            .map(RawRun::parse)
            .transpose()
    }

    /// The newest runs and each job's last good one, oldest first; those that can be read, where damage hides others.
    pub(super) fn readable_runs(&self) -> Vec<Run> {
        let select = "SELECT job, target, started_us, finished_us, verdict, reason, succeeded, detail FROM runs
             WHERE id IN (SELECT id FROM runs ORDER BY id DESC LIMIT ?1)
                OR id IN (SELECT max(id) FROM runs WHERE succeeded GROUP BY job) ORDER BY id";
        self.readable(select, [KEPT_RUNS], raw_run, RawRun::parse)
    }

    /// Whether this very run is kept.
    pub(super) fn has_run(&self, run: &Run) -> Result<bool, StoreError> {
        let found = self.0.query_row(
            "SELECT EXISTS (SELECT 1 FROM runs WHERE job = ?1 AND started_us = ?2 AND finished_us = ?3)",
            params![
                run.job,
                run.started_at.as_microsecond(),
                run.finished_at.as_microsecond()
            ],
            |row| row.get(0),
        );
        found.map_err(query("read the runs in"))
    }
}

impl Writing<'_> {
    /// Adds a run, and forgets the oldest above [`KEPT_RUNS`] of its job.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn record_run(&self, run: &Run) -> Result<(), StoreError> {
        let record = || {
            self.0.0.prepare(
                "INSERT INTO runs (job, target, started_us, finished_us, verdict, reason, succeeded, detail)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                run.job,
                run.target,
                run.started_at.as_microsecond(),
                run.finished_at.as_microsecond(),
                run.verdict.word(),
                run.verdict.reason(),
                run.succeeded,
                run.detail.to_string(),
            ])?;
            self.0
                .0
                .prepare(
                    "DELETE FROM runs WHERE job = ?1 AND id <=
                 (SELECT id FROM runs WHERE job = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                )?
                .execute(params![run.job, KEPT_RUNS])
        };
        record().map(|_| ()).map_err(query("write a run to"))
    }
}

struct RawRun {
    job: String,
    target: String,
    started: i64,
    finished: i64,
    verdict: String,
    reason: Option<String>,
    succeeded: bool,
    detail: String,
}

fn raw_run(row: &Row<'_>) -> rusqlite::Result<RawRun> {
    Ok(RawRun {
        job: row.get("job")?,
        target: row.get("target")?,
        started: row.get("started_us")?,
        finished: row.get("finished_us")?,
        verdict: row.get("verdict")?,
        reason: row.get("reason")?,
        succeeded: row.get("succeeded")?,
        detail: row.get("detail")?,
    })
}

impl RawRun {
    fn parse(self) -> Result<Run, StoreError> {
        let reason = self.reason.unwrap_or_default();
        let verdict = match self.verdict.as_str() {
            "ok" => Verdict::Ok,
            "warning" => Verdict::Warning(reason),
            "critical" => Verdict::Critical(reason),
            "unknown" => Verdict::Unknown(reason),
            _ => return Err(StoreError::Content { what: "a verdict" }),
        };
        let detail = serde_json::from_str(&self.detail);
        Ok(Run {
            job: self.job,
            target: self.target,
            started_at: time(self.started)?,
            finished_at: time(self.finished)?,
            verdict,
            succeeded: self.succeeded,
            detail: detail.map_err(|_| StoreError::Content {
                what: "a run's detail",
            })?,
        })
    }
}
