//! What one look at one object came to.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Verdict;

/// Whom a finding is about: one node, or the cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    Cluster,
    /// The node's host name.
    Node(String),
}

impl Scope {
    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Self {
        match text {
            "cluster" => Self::Cluster,
            hostname => Self::Node(hostname.to_owned()),
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cluster => "cluster",
            Self::Node(hostname) => hostname,
        })
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One check's verdict on one object, with what was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The check's name, without a slash.
    pub check: String,
    pub scope: Scope,
    /// What was looked at, such as a database or a standby; empty when the check has one object only.
    pub object: String,
    pub verdict: Verdict,
    /// In the check's own unit; the verdict's reason names it.
    pub value: Option<f64>,
    /// The limit that `value` was held against, in the same unit.
    pub threshold: Option<f64>,
    /// Names the runbook of the check.
    pub runbook: Option<String>,
}

impl Finding {
    /// A finding without a value, a threshold or a runbook.
    pub fn new(
        check: impl Into<String>,
        scope: Scope,
        object: impl Into<String>,
        verdict: Verdict,
    ) -> Self {
        Self {
            check: check.into(),
            scope,
            object: object.into(),
            verdict,
            value: None,
            threshold: None,
            runbook: None,
        }
    }
}

/// As JSON `{"check", "node", "object", "verdict", "reason", "value", "threshold", "runbook"}`.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            check: &'a str,
            node: &'a Scope,
            object: &'a str,
            verdict: &'a str,
            reason: Option<&'a str>,
            value: Option<f64>,
            threshold: Option<f64>,
            runbook: Option<&'a str>,
        }
        Shown {
            check: &self.check,
            node: &self.scope,
            object: &self.object,
            verdict: self.verdict.word(),
            reason: self.verdict.reason(),
            value: self.value,
            threshold: self.threshold,
            runbook: self.runbook.as_deref(),
        }
        .serialize(serializer)
    }
}
