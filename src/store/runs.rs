//! The history of jobs.

use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Reading, StoreError, Writing, query, time};
use crate::model::{JobDetail, Run, Verdict};

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
        let detail = StoredDetail {
            v: 1,
            detail: run.detail.as_ref(),
        };
        let detail = serde_json::to_string(&detail).expect("a detail is plain values");
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
                detail,
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
        Ok(Run {
            detail: read_detail(&self.job, &self.detail)?,
            job: self.job,
            target: self.target,
            started_at: time(self.started)?,
            finished_at: time(self.finished)?,
            verdict,
            succeeded: self.succeeded,
        })
    }
}

/// A run's detail as its row keeps it: `{"v":1,"job":"dump","detail":{…}}`.
#[derive(Serialize)]
struct StoredDetail<'a> {
    v: u32,
    #[serde(flatten)]
    detail: Option<&'a JobDetail>,
}

/// In rows from before `v` only the column tells the job. What does not fit its job, such as one that this xdb does not know,
/// is none.
fn read_detail(job: &str, row: &str) -> Result<Option<JobDetail>, StoreError> {
    let stored = serde_json::from_str::<Map<String, Value>>(row);
    let mut stored = stored.map_err(|_| StoreError::Content {
        what: "a run's detail",
    })?;
    stored.insert("job".to_owned(), job.into());
    Ok(serde_json::from_value(Value::Object(stored)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_read_as_it_was_written_and_rows_of_older_versions_are_read_too() {
        let old = r#"{"detail":{"deleted":["base_1"],"deleted_bytes":9,"gone":[],"system_identifier":7}}"#;
        let detail = read_detail("prune", old).unwrap();
        assert_eq!(detail.as_ref().unwrap().system_identifier(), Some(7));
        let stored = StoredDetail {
            v: 1,
            detail: detail.as_ref(),
        };
        let row = serde_json::to_string(&stored).unwrap();
        let written = r#"{"v":1,"job":"prune","detail":{"deleted":["base_1"],"deleted_bytes":9,"system_identifier":7}}"#;
        assert_eq!(row, written);
        assert_eq!(read_detail("prune", &row).unwrap(), detail);
        for row in [r#"{"v":1}"#, r#"{"findings":[]}"#, old] {
            assert_eq!(read_detail("of-a-later-xdb", row).unwrap(), None);
        }
        assert!(read_detail("prune", "cut").is_err());
    }
}
