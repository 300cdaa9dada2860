//! What a restore test found, kept beside the repository for every node, and for retention.

use std::time::Instant;

use jiff::Timestamp;

use super::report::secs;
use super::{Conclusion, Options, Report, Step, run};
use crate::archive;
use crate::config::{Config, Loaded};
use crate::log;
use crate::storage::{Proof, Shared, SharedError};

/// Runs a restore test of the cluster's own repository, as [`run`], and keeps what it found as a proof.
///
/// A test that could not be run, or did not reach its target, judged no backup and leaves no proof.
pub async fn prove(
    loaded: &Loaded,
    options: &Options,
    progress: &mut (dyn FnMut(&Step) + Send + Sync),
) -> Report {
    let (started_at, began) = (Timestamp::now(), Instant::now());
    let report = run(loaded, options, progress).await;
    let judged = matches!(
        report.conclusion,
        Conclusion::Passed | Conclusion::Failed | Conclusion::Incomplete
    );
    if judged && !report.target_missed {
        let when = (started_at, secs(began.elapsed()));
        if let Err(error) = keep(&loaded.config, when, &report).await {
            tracing::warn!(
                "the proof of this restore test is not in the bucket: {} (HINT: {})",
                log::chain(&error),
                error.hint()
            );
        }
    }
    report
}

async fn keep(config: &Config, when: (Timestamp, f64), report: &Report) -> Result<(), SharedError> {
    let Ok(repository) = archive::repository(config) else {
        // A test that judged a backup knew where it was.
        return Ok(());
    };
    let report = serde_json::to_value(report).unwrap_or_default();
    let node = &config.node.hostname;
    match Proof::new(node, &repository.to_string(), when, report) {
        Some(proof) => Shared::open(config).await?.keep_proof(&proof).await,
        None => Ok(()),
    }
}
