//! What a restore test found, as people and programs read it.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;
use serde::Serialize;

use super::RestoreError;
use super::configure::SHARED_BUFFERS;
use super::level::Level;
use super::server::Network;
use super::verify::{Look, NotLookedAt};
use crate::archive::DAMAGED;
use crate::model::ArchiveFile;
use crate::model::{Lsn, Timeline, Verdict, Verification};
use crate::process;
use crate::restore::Setup;

/// Seconds to the millisecond: more would be noise.
pub fn secs(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1000.0).round() / 1000.0
}

/// One part of the work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    pub name: &'static str,
    pub secs: f64,
    /// What the step moved: stored bytes fetched, WAL replayed, table data read. `None` where it moves none.
    pub bytes: Option<u64>,
}

/// The conditions of the measurement: a restore for good has the machine for itself, and keeps fsync on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Conditions {
    /// The fetch was throttled, so that the RTO cannot be compared with an objective.
    pub throttled: bool,
    /// Lowest priority of processor and disk.
    pub modest: bool,
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
            modest: true,
            memory_limit_bytes: process::modest_limit(),
            fsync: false,
            shared_buffers: SHARED_BUFFERS,
            network: Network::here(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10} {:>7.2} s", self.name, self.secs)?;
        match self.bytes {
            Some(bytes) => write!(f, "  {}", ByteSize(bytes)),
            None => Ok(()),
        }
    }
}

/// How a restore test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    Passed,
    /// Done or tried, and bad.
    Failed,
    /// Restored, nothing bad was found, and some checks could not be made.
    Incomplete,
    /// Not tried, for safety.
    Refused,
    /// Could not be run to its end, so the backup was not judged.
    NotRun,
}

impl Conclusion {
    pub fn word(self) -> &'static str {
        match self {
            Self::Passed => "PASSED",
            Self::Failed => "FAILED",
            Self::Incomplete => "INCOMPLETE",
            Self::Refused => "REFUSED",
            Self::NotRun => "NOT RUN",
        }
    }
}

/// A restore test's result; the JSON of `xdb restore-test --json`.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub passed: bool,
    /// How much was looked at.
    pub level: Level,
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
    /// What the verifications did not look at.
    pub not_looked_at: Vec<Unseen>,
    /// Where what was restored is kept.
    pub kept: Option<PathBuf>,
    /// Why it did not pass.
    pub reason: Option<String>,
    /// The segment in the archive that it found damaged.
    pub damaged_wal: Option<String>,
    /// There is no backup yet, or another test is running: no backup was judged, and the test can be run later.
    #[serde(skip)]
    pub not_now: bool,
    /// Verifications that may stay unknown in a test that passes: there is nothing here to look at.
    #[serde(skip)]
    pub excused: Vec<&'static str>,
    #[serde(skip)]
    pub hint: Option<String>,
    /// Only the target could not be reached, so the backup was not judged.
    #[serde(skip)]
    pub target_missed: bool,
    pub conclusion: Conclusion,
}

/// An object that the verification of this name did not look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unseen {
    pub verification: &'static str,
    #[serde(flatten)]
    pub what: NotLookedAt,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            passed: false,
            level: Level::default(),
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
            excused: Vec::new(),
            hint: None,
            target_missed: false,
            conclusion: Conclusion::NotRun,
        }
    }
}

impl Report {
    /// Of a test that could not begin.
    pub fn not_begun(error: RestoreError) -> Self {
        Self::default().conclude(Err(error))
    }

    pub(super) fn looked(&mut self, at: impl Into<String>, verdict: Verdict) {
        self.verifications.push(Verification::new(at, verdict));
    }

    /// Replaces the verdict of a verification that was made before.
    pub(super) fn looked_again(&mut self, at: &str, verdict: Verdict) {
        let mut all = self.verifications.iter_mut();
        match all.find(|verification| verification.name == at) {
            Some(verification) => verification.verdict = verdict,
            None => self.looked(at, verdict),
        }
    }

    /// As [`Self::looked`], for many objects.
    pub(super) fn looked_into(&mut self, name: &'static str, look: Look) {
        self.looked(name, look.verdict());
        let unseen = look.into_list().into_iter();
        let unseen = unseen.map(|what| Unseen {
            verification: name,
            what,
        });
        self.not_looked_at.extend(unseen);
    }

    /// As [`Self::looked`], unless the verdict is ok.
    pub(super) fn remarked(&mut self, name: &str, verdict: Verdict) {
        if verdict != Verdict::Ok {
            self.looked(name, verdict);
        }
    }

    /// Concludes from the outcome of the work and from the verifications.
    pub(super) fn conclude(mut self, outcome: Result<(), RestoreError>) -> Self {
        let bad = judge_verifications(&self.verifications, &self.excused);
        let damaged = bad.is_some_and(|bad| matches!(bad.verdict, Verdict::Critical(_)));
        let seen =
            bad.map(|bad| format!("{}: {}", bad.name, bad.verdict.reason().unwrap_or_default()));
        match (outcome, seen) {
            (Ok(()), None) => (self.passed, self.conclusion) = (true, Conclusion::Passed),
            (Ok(()), Some(seen)) => {
                let (conclusion, hint) = if damaged {
                    let hint = "count on no more than what came back; `xdb backup list` shows what the archive holds";
                    (Conclusion::Failed, hint)
                } else {
                    let hint = "nothing bad was found in the rest; install what this node lacks, mend what the reason names, and test again";
                    (Conclusion::Incomplete, hint)
                };
                (self.reason, self.hint) = (Some(seen), Some(hint.to_owned()));
                self.conclusion = conclusion;
            }
            (Err(error), seen) => {
                self.conclusion = error.conclusion();
                self.hint = error.hint();
                self.not_now = error.is_not_now();
                self.target_missed = matches!(error, RestoreError::Unreachable { .. }) && !damaged;
                let words = crate::log::chain(&error);
                self.damaged_wal = self.damaged_wal.or_else(|| damaged_segment(&words));
                self.reason = Some(match seen {
                    Some(seen) if self.conclusion == Conclusion::Failed => {
                        format!("{words} ({seen})")
                    }
                    // Damage that was found counts, however the test ended.
                    Some(seen) if damaged && self.conclusion == Conclusion::NotRun => {
                        self.conclusion = Conclusion::Failed;
                        format!("{seen} (then: {words})")
                    }
                    _ => words,
                });
            }
        }
        self
    }
}

/// The segment of which `wal-fetch` said in `words` that the archived copy is no good.
fn damaged_segment(words: &str) -> Option<String> {
    let (_, said) = words.split_once(DAMAGED)?;
    let mut names = said.split(|c: char| !c.is_ascii_hexdigit());
    let is_segment = |name: &&str| ArchiveFile::of(name) == Some(ArchiveFile::Segment);
    names.find(is_segment).map(str::to_owned)
}

/// The verification that keeps a test from passing: the first that is bad, else the first that is unknown and not excused.
pub(super) fn judge_verifications<'a>(
    verifications: &'a [Verification],
    excused: &[&str],
) -> Option<&'a Verification> {
    let bad = |verification: &&Verification| matches!(verification.verdict, Verdict::Critical(_));
    let unknown = |verification: &&Verification| {
        matches!(verification.verdict, Verdict::Unknown(_))
            && !excused.contains(&verification.name.as_str())
    };
    verifications
        .iter()
        .find(bad)
        .or_else(|| verifications.iter().find(unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verification(name: &str, verdict: Verdict) -> Verification {
        Verification::new(name, verdict)
    }

    #[test]
    fn what_could_not_be_looked_at_does_not_pass_unless_there_is_nothing_to_look_at() {
        let unknown = |name| {
            [
                verification("tables", Verdict::Ok),
                verification(name, Verdict::Unknown("why".into())),
            ]
        };
        let conclude = |verifications: &[Verification]| {
            let report = Report {
                verifications: verifications.to_vec(),
                excused: vec!["checksums"],
                ..Report::default()
            };
            report.conclude(Ok(())).conclusion
        };
        assert_eq!(conclude(&unknown("checksums")), Conclusion::Passed);
        assert_eq!(conclude(&unknown("amcheck")), Conclusion::Incomplete);
        let remark = verification("databases", Verdict::Warning("half".into()));
        assert_eq!(conclude(&[remark]), Conclusion::Passed);
        let bad = verification("checksums", Verdict::Critical("bad".into()));
        assert_eq!(
            conclude(&[unknown("amcheck").to_vec(), vec![bad]].concat()),
            Conclusion::Failed
        );
    }

    #[test]
    fn the_json_has_every_key_even_when_nothing_is_known() {
        let json = serde_json::to_value(Report::default()).unwrap();
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
