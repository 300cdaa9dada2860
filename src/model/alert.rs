//! An alert: a finding that is not ok and lasts.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Finding, ParseError, Scope, Verdict};

/// The severity of a finding. `Unknown`, a check that could not be made, ranks below both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Unknown,
    Warning,
    Critical,
}

impl Severity {
    /// `None` when the verdict is ok.
    pub fn of(verdict: &Verdict) -> Option<Self> {
        match verdict {
            Verdict::Ok => None,
            Verdict::Unknown(_) => Some(Self::Unknown),
            Verdict::Warning(_) => Some(Self::Warning),
            Verdict::Critical(_) => Some(Self::Critical),
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// # Errors
    /// When `word` is no [`Severity::word`].
    pub fn parse(word: &str) -> Result<Self, ParseError> {
        [Self::Unknown, Self::Warning, Self::Critical]
            .into_iter()
            .find(|severity| severity.word() == word)
            .ok_or_else(|| ParseError::new(word, "a severity (unknown, warning or critical)"))
    }
}

/// The identity of an alert; text is `{check}/{node or "cluster"}/{object}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AlertKey {
    pub check: String,
    pub scope: Scope,
    pub object: String,
}

impl AlertKey {
    pub fn of(finding: &Finding) -> Self {
        Self {
            check: finding.check.clone(),
            scope: finding.scope.clone(),
            object: finding.object.clone(),
        }
    }

    /// Reads what [`fmt::Display`] wrote; an object may hold slashes.
    ///
    /// # Errors
    /// When `text` has no three parts.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let bad = || ParseError::new(text, "the key of an alert (check/node/object)");
        let mut parts = text.splitn(3, '/');
        let mut part = || parts.next().ok_or_else(bad);
        Ok(Self {
            check: part()?.to_owned(),
            scope: Scope::parse(part()?),
            object: part()?.to_owned(),
        })
    }
}

impl fmt::Display for AlertKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.check, self.scope, self.object)
    }
}

/// An alert as it stands, raised or still waiting for its time.
#[derive(Debug, Clone, PartialEq)]
pub struct AlertState {
    pub severity: Severity,
    /// Since when findings have not been ok.
    pub since: Timestamp,
    /// `None` while the alert is pending: it is not raised and not published.
    pub raised_at: Option<Timestamp>,
    pub reason: String,
    pub value: Option<f64>,
    pub threshold: Option<f64>,
    pub runbook: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_as_it_is_written() {
        for text in [
            "replication-lag/cluster/db2",
            "archiver/db1/",
            "disk/db1//var/lib/postgresql",
        ] {
            assert_eq!(AlertKey::parse(text).unwrap().to_string(), text);
        }
        let key = AlertKey::parse("disk/db1//var").unwrap();
        assert_eq!(
            (key.scope, key.object.as_str()),
            (Scope::Node("db1".to_owned()), "/var")
        );
        assert!(AlertKey::parse("archiver/db1").is_err());
    }

    #[test]
    fn severities_rank_and_read_back() {
        assert!(Severity::Unknown < Severity::Warning && Severity::Warning < Severity::Critical);
        for severity in [Severity::Unknown, Severity::Warning, Severity::Critical] {
            assert_eq!(Severity::parse(severity.word()), Ok(severity));
        }
        assert!(Severity::parse("ok").is_err());
    }
}
