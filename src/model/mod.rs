//! Values that every room shares: positions in WAL, timelines, segments, verdicts, findings, alerts. No IO, no clock.

mod account;
mod age;
mod alert;
mod finding;
mod job_detail;
mod line;
mod lsn;
mod outcome;
mod runbooks;
mod secret;
mod segment;
mod silence;
mod supersession;
mod timeline;
mod verdict;

pub use account::account_name;
pub use age::{age, ago};
pub use alert::{
    AcknowledgedBy, AlertKey, AlertMarks, AlertState, Notice, Severity, SilencedBy, Told,
};
pub use finding::{Finding, Scope};
pub use job_detail::{
    BaseBackupDetail, DumpDetail, DumpTestDetail, JobDetail, PruneDetail, TestConditions,
    TestFields, TestReport,
};
pub use line::line_of;
pub use lsn::Lsn;
pub use outcome::{Outcome, Run};
pub(crate) use runbooks::{RUNBOOKS, runbook};
pub use secret::may_hold_password;
pub use segment::{ArchiveFile, SegmentSize, WalSegment};
pub use silence::{AlertPattern, Ended, Silence, Silenced};
pub use supersession::{
    ForgottenTimeline, ForgottenTimelines, ServerPosition, Supersession, judge_descent,
    judge_number,
};
pub use timeline::{Timeline, TimelineHistory, TimelineSwitch};
pub use verdict::{Verdict, Verification};

/// A value that was not written the way its type is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseError {
    pub text: String,
    pub expected: &'static str,
}

impl ParseError {
    pub(crate) fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.to_owned(),
            expected,
        }
    }
}
