//! What a restore test found, as people and programs read it.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::Serialize;

use super::test_level::TestLevel;
use crate::archive::DAMAGED;
use crate::log;
use crate::model::{ArchiveFile, Lsn, Timeline, Verification};
use crate::process;
use crate::restore::recover::{Network, SHARED_BUFFERS};
use crate::restore::verify::UncheckedObject;
use crate::restore::{Advice, Conclusion, RestoreError, RestoreRecord, Setup, Step, conclude};

/// The conditions of the measurement: a restore for good has the machine for itself, and keeps fsync on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Conditions {
    /// The fetch was throttled, so that the RTO cannot be compared with an objective.
    pub throttled: bool,
    /// Lowest priority of processor and disk.
    #[serde(rename = "modest")]
    pub low_priority: bool,
    /// Memory that the program and the scratch server could take together; `None` without a limit.
    pub memory_limit_bytes: Option<u64>,
    pub fsync: bool,
    pub shared_buffers: &'static str,
    /// What the verifications could reach.
    pub network: Network,
}

impl Conditions {
    pub(super) fn of(setup: &Setup) -> Self {
        let limits = ["WALG_NETWORK_RATE_LIMIT", "WALG_DISK_RATE_LIMIT"];
        let limited = |name: &&str| {
            setup
                .repository
                .program
                .archive
                .settings
                .contains_key(*name)
        };
        Self {
            throttled: setup.settings.network_limit_mib.is_some() || limits.iter().any(limited),
            low_priority: true,
            memory_limit_bytes: process::low_priority_limit(),
            fsync: false,
            shared_buffers: SHARED_BUFFERS,
            network: Network::here(),
        }
    }
}

/// A restore test's result; the JSON of `xdb restore-test --json`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TestResult {
    pub passed: bool,
    /// How much was verified.
    pub level: TestLevel,
    /// Where it was to stop; at the end of the archive where `None`.
    pub until: Option<String>,
    pub backup: Option<String>,
    pub system_identifier: Option<u64>,
    /// The timeline that was recovered, before the promotion that ends the recovery.
    pub timeline: Option<Timeline>,
    /// End of the last record that was replayed.
    pub recovered_lsn: Option<Lsn>,
    /// Commit time of the last transaction that was replayed; `None` where the WAL held none.
    pub recovered_to: Option<Timestamp>,
    /// Seconds from the begin of the fetch until the server took read-write queries and all of it was on the disk.
    pub rto_secs: Option<f64>,
    /// Of `rto_secs`.
    pub conditions: Option<Conditions>,
    /// Seconds from the first transaction that a loss of the primary would have lost until the begin of the test. 0 where none
    /// would be lost, `None` where no server of this cluster could be queried here.
    pub rpo_secs: Option<f64>,
    /// WAL that was replayed: segments, and their bytes as stored. `None` where it stopped before the end of the archive.
    pub wal_segments: Option<u64>,
    pub wal_stored_bytes: Option<u64>,
    pub steps: Vec<Step>,
    pub verifications: Vec<Verification>,
    /// What the verifications could not check.
    pub not_looked_at: Vec<Unchecked>,
    /// Where what was restored is kept.
    pub kept: Option<PathBuf>,
    /// Why it did not pass.
    pub reason: Option<String>,
    /// The segment in the archive that it found damaged.
    pub damaged_wal: Option<String>,
    /// There is no backup yet, or another test is running: no backup was judged, and the test can be run later.
    #[serde(skip)]
    pub not_now: bool,
    #[serde(skip)]
    pub hint: Option<String>,
    /// Only the target could not be reached, so the backup was not judged.
    #[serde(skip)]
    pub target_missed: bool,
    pub conclusion: Conclusion,
}

/// An object that the verification of this name could not check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Unchecked {
    pub verification: &'static str,
    #[serde(flatten)]
    pub what: UncheckedObject,
}

impl Default for TestResult {
    fn default() -> Self {
        Self {
            passed: false,
            level: TestLevel::default(),
            until: None,
            backup: None,
            system_identifier: None,
            timeline: None,
            recovered_lsn: None,
            recovered_to: None,
            rto_secs: None,
            conditions: None,
            rpo_secs: None,
            wal_segments: None,
            wal_stored_bytes: None,
            steps: Vec::new(),
            verifications: Vec::new(),
            not_looked_at: Vec::new(),
            kept: None,
            reason: None,
            damaged_wal: None,
            not_now: false,
            hint: None,
            target_missed: false,
            conclusion: Conclusion::NotRun,
        }
    }
}

impl TestResult {
    /// Of a test at `level` that could not begin.
    pub(crate) fn not_begun(level: TestLevel, error: RestoreError) -> Self {
        let report = Self {
            level,
            ..Self::default()
        };
        report.conclude(RestoreRecord::default(), Vec::new(), Err(error))
    }

    /// Concludes from the outcome of the work and from what it showed.
    pub(super) fn conclude(
        self,
        record: RestoreRecord,
        steps: Vec<Step>,
        outcome: Result<(), RestoreError>,
    ) -> Self {
        let concluded = conclude(&outcome, &record.verifications, &ADVICE);
        let is_damaged = record.verifications.critical().is_some();
        let error = outcome.err();
        Self {
            passed: concluded.conclusion == Conclusion::Passed,
            backup: record.backup,
            system_identifier: record.system_identifier,
            timeline: record.timeline,
            recovered_lsn: record.recovered_lsn,
            recovered_to: record.recovered_to,
            steps,
            verifications: record.verifications.into_list(),
            reason: concluded.reason,
            damaged_wal: error
                .as_ref()
                .and_then(|error| damaged_segment(&log::chain(error))),
            hint: concluded.hint,
            not_now: error.as_ref().is_some_and(RestoreError::is_not_now),
            target_missed: !is_damaged && matches!(error, Some(RestoreError::Unreachable { .. })),
            conclusion: concluded.conclusion,
            ..self
        }
    }
}

/// The segment whose archived copy `wal-fetch` called damaged in `message`.
fn damaged_segment(message: &str) -> Option<String> {
    let (_, segment) = message.split_once(DAMAGED)?;
    let mut names = segment.split(|c: char| !c.is_ascii_hexdigit());
    let is_segment = |name: &&str| ArchiveFile::of(name) == Some(ArchiveFile::Segment);
    names.find(is_segment).map(str::to_owned)
}

const ADVICE: Advice = Advice {
    bad: "count on no more than what came back; `xdb backup list` shows what the archive holds",
    unknown: (
        Conclusion::Incomplete,
        "nothing bad was found in the rest; install what this node lacks, mend what the reason names, and test again",
    ),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_segment_that_wal_fetch_called_damaged_is_named() {
        let name = "000000010000000000000003";
        for (message, expected) in [
            (
                format!("{DAMAGED}: what the archive holds of {name} is no good"),
                Some(name),
            ),
            (
                format!("{DAMAGED}: 00000002.history, before {name}"),
                Some(name),
            ),
            (format!("{DAMAGED}: 00000002.history"), None),
            (format!("recovery ended before {name}"), None),
            (format!("wal-fetch: could not look for {name}"), None),
        ] {
            assert_eq!(damaged_segment(&message).as_deref(), expected, "{message}");
        }
    }

    #[test]
    fn the_json_has_every_key_even_when_nothing_is_known() {
        let json = serde_json::to_value(TestResult::default()).unwrap();
        let keys: Vec<&str> = json
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        for key in [
            "passed",
            "level",
            "backup",
            "system_identifier",
            "timeline",
            "recovered_lsn",
            "recovered_to",
            "until",
            "rto_secs",
            "conditions",
            "rpo_secs",
            "wal_segments",
            "wal_stored_bytes",
            "steps",
            "verifications",
            "not_looked_at",
            "kept",
            "reason",
            "damaged_wal",
            "conclusion",
        ] {
            assert!(keys.contains(&key), "{key}");
        }
        assert_eq!(keys.len(), 20);
    }
}
