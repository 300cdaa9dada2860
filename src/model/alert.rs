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
    /// What its consumers know of it.
    pub notice: Notice,
}

impl AlertState {
    /// The severity that consumers know, where the alert has another one now.
    pub fn told_before(&self) -> Option<Severity> {
        let told = self.notice.told.map(|told| told.severity);
        told.filter(|told| *told != self.severity)
    }
}

/// What the consumers of alerts were told of one, and why they are not told more. As JSON in the state store.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// `None`: nothing. The alert is pending, or was hidden from the start.
    #[serde(default)]
    pub told: Option<Told>,
    /// When it last followed from the alert in [`AlertMarks::inhibited_by`].
    #[serde(default)]
    pub inhibited_at: Option<Timestamp>,
    #[serde(flatten)]
    pub marks: AlertMarks,
}

/// The last event about an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub severity: Severity,
    /// `None` where another node told it.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// They were told that it is silenced: its end is news.
    #[serde(default)]
    pub quiet: bool,
}

/// Who hides an alert, and who knows of it: shown with the alert everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertMarks {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silenced: Option<SilencedBy>,
    /// The key of the alert that it follows from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inhibited_by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<AcknowledgedBy>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilencedBy {
    /// Of the [`super::Silence`].
    pub id: String,
    pub by: String,
    pub comment: String,
    pub until: Timestamp,
    /// The worst severity that it hides. An older xdb did not say: then it hides no more than a check that could not be made.
    #[serde(default = "least")]
    pub severity: Severity,
}

fn least() -> Severity {
    Severity::Unknown
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgedBy {
    /// Of the [`super::Silence`].
    pub id: String,
    pub by: String,
    pub comment: String,
    pub at: Timestamp,
}

impl AlertMarks {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// As words behind an alert, such as "silenced by eve until 2026-05-13 12:00 UTC: a disk is being replaced".
impl fmt::Display for AlertMarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let with = |comment: &str| match comment {
            "" => String::new(),
            comment => format!(": {comment}"),
        };
        let silenced = self.silenced.as_ref().map(|it| {
            let until = it.until.strftime("%F %R UTC");
            format!("silenced by {} until {until}{}", it.by, with(&it.comment))
        });
        let inhibited = self.inhibited_by.as_ref();
        let inhibited = inhibited.map(|cause| format!("follows from {cause}"));
        let acknowledged = self.acknowledged.as_ref();
        let acknowledged =
            acknowledged.map(|it| format!("acknowledged by {}{}", it.by, with(&it.comment)));
        let words = [silenced, inhibited, acknowledged].into_iter().flatten();
        f.write_str(&words.collect::<Vec<_>>().join("; "))
    }
}

impl Notice {
    /// Of an alert that consumers know as it stands.
    pub fn known(severity: Severity, at: Option<Timestamp>) -> Self {
        Self {
            told: Some(Told {
                severity,
                at,
                quiet: false,
            }),
            ..Self::default()
        }
    }
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
