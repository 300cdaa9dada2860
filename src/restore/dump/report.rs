//! What a dump restore test found, as people and programs read it.

use serde::Serialize;

use crate::dump::LeftOut;
use crate::model::Verification;
use crate::restore::recover::Network;
use crate::restore::{Advice, Conclusion, RestoreError, Step, Verifications, conclude};

/// A dump restore test's result; the JSON of `xdb dump test --json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct DumpReport {
    pub passed: bool,
    pub set: Option<String>,
    pub system_identifier: Option<u64>,
    /// Of the whole test.
    pub secs: f64,
    /// What the set takes in the bucket.
    pub bytes: Option<u64>,
    pub steps: Vec<Step>,
    /// `set`, `globals`, then `database: NAME` for each.
    pub verifications: Vec<Verification>,
    /// What the set does not hold, by its manifest: none of it was tested.
    pub left_out: Vec<LeftOut>,
    /// What was not restored, and is no fault of the dump.
    pub notes: Vec<String>,
    /// What the restored databases could reach.
    pub network: Network,
    /// Why it did not pass.
    pub reason: Option<String>,
    #[serde(skip)]
    pub is_encrypted: bool,
    /// There is no set yet, or another test is running.
    #[serde(skip)]
    pub not_now: bool,
    #[serde(skip)]
    pub hint: Option<String>,
    #[serde(skip)]
    pub conclusion: Conclusion,
}

impl Default for DumpReport {
    fn default() -> Self {
        Self {
            passed: false,
            set: None,
            system_identifier: None,
            secs: 0.0,
            bytes: None,
            steps: Vec::new(),
            verifications: Vec::new(),
            left_out: Vec::new(),
            notes: Vec::new(),
            network: Network::here(),
            reason: None,
            is_encrypted: false,
            not_now: false,
            hint: None,
            conclusion: Conclusion::NotRun,
        }
    }
}

impl DumpReport {
    /// Of a test that could not begin.
    pub(crate) fn not_begun(error: RestoreError) -> Self {
        Self::default().conclude(Verifications::default(), Err(error))
    }

    /// Concludes from the outcome of the work and from its verifications.
    pub(super) fn conclude(
        self,
        verifications: Verifications,
        outcome: Result<(), RestoreError>,
    ) -> Self {
        let concluded = conclude(&outcome, &verifications, &ADVICE);
        Self {
            passed: concluded.conclusion == Conclusion::Passed,
            verifications: verifications.into_list(),
            reason: concluded.reason,
            hint: concluded.hint,
            not_now: outcome.is_err_and(|error| error.is_not_now()),
            conclusion: concluded.conclusion,
            ..self
        }
    }
}

const ADVICE: Advice = Advice {
    bad: "do not count on this dump: make a new one with `xdb dump push`, then `xdb dump test`",
    unknown: (
        Conclusion::NotRun,
        "the dump was not judged: give this node what the reason names, or test the dump on a node that has it",
    ),
};
