//! What a restore test found, kept beside the repository for every node, and for retention.

use std::time::Instant;

use jiff::Timestamp;

use super::report::TestResult;
use super::run::{TestOptions, run};
use crate::log;
use crate::model::TestReport;
use crate::repository::{Proof, SharedError};
use crate::restore::{Conclusion, OnStep, Setup, secs};

/// Runs a restore test of the cluster's own repository, as [`run`], and keeps what it found as a proof.
///
/// A test that could not be run, or did not reach its target, judged no backup and leaves no proof.
pub(crate) async fn prove(setup: &Setup, options: &TestOptions, on_step: OnStep<'_>) -> TestResult {
    let (started_at, began) = (Timestamp::now(), Instant::now());
    let report = run(setup, options, on_step).await;
    let judged = matches!(
        report.conclusion,
        Conclusion::Passed | Conclusion::Failed | Conclusion::Incomplete
    );
    if judged && !report.target_missed {
        let when = (started_at, secs(began.elapsed()));
        if let Err(error) = keep(setup, when, &report).await {
            tracing::warn!(
                "the proof of this restore test is not in the bucket: {} (HINT: {})",
                log::chain(&error),
                error.hint()
            );
        }
    }
    report
}

async fn keep(
    setup: &Setup,
    when: (Timestamp, f64),
    report: &TestResult,
) -> Result<(), SharedError> {
    let repository = &setup.repository;
    let report = TestReport::of(report);
    let node = &setup.node.hostname;
    match Proof::new(node, &repository.location.to_string(), when, report) {
        Some(proof) => repository.shared.keep_proof(&proof).await,
        None => Ok(()),
    }
}
