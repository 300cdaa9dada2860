//! `xdb restore-test history`: what was proven, on whatever node, and what could not be run on this one.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::timeout;

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::{say, table};
use crate::jobs::restore_test;
use crate::log;
use crate::model::{JobDetail, Run, TestFields, TestReport, Verdict};
use crate::repository::{Proof, RepositoryHandle, SharedError};
use crate::store::{Reader, StoreError};

/// For the proofs together.
const LIMIT: Duration = Duration::from_mins(1);

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 listed, 4 the bucket or this node's own history could not be read."
)]
pub(crate) struct Arguments {
    /// At most so many tests
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print the tests with their reports as JSON
    #[arg(long)]
    json: bool,
}

/// One restore test, as a line and as JSON.
#[derive(Debug, Serialize)]
struct Test {
    started_at: Timestamp,
    elapsed_secs: f64,
    node: String,
    result: &'static str,
    /// Why it did not pass.
    reason: Option<String>,
    /// As `xdb restore-test --json` printed it; `None` for a run that ended before there was one.
    report: Option<TestReport>,
}

impl From<Proof> for Test {
    fn from(proof: Proof) -> Self {
        let result = match proof.passed {
            true => "passed",
            false if proof.is_incomplete() => "incomplete",
            false => "failed",
        };
        Self {
            started_at: proof.started_at,
            elapsed_secs: proof.elapsed_secs,
            node: proof.node,
            result,
            reason: proof.report.fields.reason.clone(),
            report: Some(proof.report),
        }
    }
}

pub(crate) async fn run(arguments: &Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let config = handles.config();
    let (proofs, not_in_bucket) = match proofs(&handles.repository, arguments.limit as usize).await
    {
        Ok(proofs) => (proofs, None),
        Err(reason) => (Vec::new(), Some(reason)),
    };
    let (runs, not_here) = match runs(&config.node.state_directory) {
        Ok(runs) => (runs, None),
        Err(error) => (Vec::new(), Some(log::chain(&error))),
    };
    let mut tests = with_runs(proofs, runs, &config.node.hostname);
    tests.truncate(arguments.limit as usize);
    if arguments.json {
        say(serde_json::to_string_pretty(&tests)?)?;
    } else if tests.is_empty() {
        say("no restore test was made yet")?;
    } else {
        print(&tests)?;
    }
    let unread = [
        ("the proofs in the bucket", not_in_bucket),
        ("this node's own history", not_here),
    ];
    let mut exit = Exit::Good;
    for (what, reason) in unread {
        if let Some(reason) = reason {
            complain(
                &format!("{what} cannot be read: {reason}"),
                Some("the list above is without them"),
            );
            exit = Exit::CouldNot;
        }
    }
    Ok(exit)
}

async fn proofs(repository: &RepositoryHandle, limit: usize) -> Result<Vec<Proof>, String> {
    let asked = async { repository.shared().await?.newest_proofs(limit).await };
    match timeout(LIMIT, asked).await {
        Ok(answer) => answer.map_err(|error: SharedError| log::chain(&error)),
        Err(_) => Err(format!("S3 did not answer within {} s", LIMIT.as_secs())),
    }
}

/// What this node remembers of the job's runs; nothing where it never ran one.
fn runs(state_directory: &Path) -> Result<Vec<Run>, StoreError> {
    let Some(reader) = Reader::open(state_directory)? else {
        return Ok(Vec::new());
    };
    reader
        .reading()
        .runs(Some(restore_test::JOB.name), u32::MAX)
}

/// The proofs, and those of this node's runs that left none: they could not be run, or the bucket could not be written.
fn with_runs(proofs: Vec<Proof>, runs: Vec<Run>, hostname: &str) -> Vec<Test> {
    let mut tests: Vec<Test> = proofs.into_iter().map(Test::from).collect();
    for run in runs {
        let report = match run.detail {
            Some(JobDetail::RestoreTest(report)) => Some(*report),
            _ => None,
        };
        let is_same = |test: &Test| report.is_some() && test.report == report;
        if tests.iter().any(is_same) {
            continue;
        }
        let fields = report.as_ref().map(|report| &report.fields);
        let conclusion = fields.and_then(|fields| fields.conclusion.as_deref());
        let elapsed = run.finished_at.duration_since(run.started_at);
        tests.push(Test {
            started_at: run.started_at,
            elapsed_secs: elapsed.as_secs_f64(),
            node: hostname.to_owned(),
            result: match (conclusion, &run.verdict) {
                // A test that passed and took longer than the objective is a warning, too.
                (Some("passed"), _) | (None, Verdict::Ok) => "passed",
                (Some("incomplete"), _) => "incomplete",
                (_, Verdict::Critical(_)) => "failed",
                _ => "not run",
            },
            reason: run.verdict.reason().map(str::to_owned),
            report,
        });
    }
    tests.sort_by_key(|test| std::cmp::Reverse(test.started_at));
    tests
}

fn print(tests: &[Test]) -> std::io::Result<()> {
    let unknown = TestFields::default();
    let rows = tests.iter().map(|test| {
        let report = test.report.as_ref().map_or(&unknown, |it| &it.fields);
        let text = |text: &Option<String>| text.as_deref().unwrap_or("-").to_owned();
        let secs =
            |secs: Option<f64>| secs.map_or_else(|| "-".to_owned(), |secs| format!("{secs:.1} s"));
        vec![
            test.started_at.strftime("%F %T").to_string(),
            test.node.clone(),
            text(&report.backup),
            text(&report.level),
            text(&report.until),
            test.result.to_owned(),
            secs(report.rto_secs),
            secs(report.rpo_secs),
            report
                .recovered_to
                .map_or_else(|| "-".to_owned(), |to| to.strftime("%F %T").to_string()),
            format!("{:.1}", test.elapsed_secs),
        ]
    });
    let header = [
        "STARTED (UTC)",
        "NODE",
        "BACKUP",
        "LEVEL",
        "UNTIL",
        "RESULT",
        "RTO",
        "RPO",
        "RECOVERED TO (UTC)",
        "SECONDS",
    ];
    say(table(&header, &[6, 7, 9], rows).trim_fmt())?;
    for test in tests {
        if let Some(reason) = &test.reason {
            let at = test.started_at.strftime("%F %T");
            say(format_args!("{at}: {reason}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn proof(second: i64, report: Value) -> Proof {
        let report = report.try_into().unwrap();
        Proof::new("db2", "s3://b/p", (at(second), 1.0), report).unwrap()
    }

    fn run(second: i64, verdict: Verdict, report: Value) -> Run {
        Run {
            job: "restore-test".to_owned(),
            target: String::new(),
            started_at: at(second),
            finished_at: at(second + 2),
            succeeded: verdict == Verdict::Ok,
            verdict,
            detail: Some(JobDetail::RestoreTest(Box::new(report.try_into().unwrap()))),
        }
    }

    #[test]
    fn a_test_is_listed_once_and_one_that_could_not_be_run_from_here() {
        let passed = json!({ "passed": true, "backup": "base_1", "rto_secs": 1.5 });
        let failed = json!({ "passed": false, "backup": "base_2", "reason": "cut" });
        let unknown = Verdict::Unknown("S3 does not answer".to_owned());
        let critical = Verdict::Critical("cut".to_owned());
        let tests = with_runs(
            vec![proof(40, failed.clone()), proof(10, passed.clone())],
            vec![
                run(50, critical.clone(), json!({ "backup": "base_3" })),
                run(39, critical, failed),
                run(30, unknown, json!({ "passed": false, "backup": null })),
                run(10, Verdict::Ok, passed),
            ],
            "db1",
        );
        let listed: Vec<_> = tests
            .iter()
            .map(|test| (test.started_at.as_second(), test.node.as_str(), test.result))
            .collect();
        assert_eq!(
            listed,
            [
                (50, "db1", "failed"),
                (40, "db2", "failed"),
                (30, "db1", "not run"),
                (10, "db2", "passed"),
            ]
        );
        assert_eq!(tests[1].reason.as_deref(), Some("cut"));
    }
}
