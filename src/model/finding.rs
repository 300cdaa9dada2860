//! Findings: the result of one check on one object.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Verdict;

/// The subject of a finding: one node, or the cluster as a whole.
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
        FindingJson {
            check: Cow::Borrowed(&self.check),
            node: Cow::Owned(self.scope.to_string()),
            object: Cow::Borrowed(&self.object),
            verdict: Cow::Borrowed(self.verdict.word()),
            reason: self.verdict.reason().map(Cow::Borrowed),
            value: self.value,
            threshold: self.threshold,
            runbook: self.runbook.as_deref().map(Cow::Borrowed),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Finding {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let shown = FindingJson::deserialize(deserializer)?;
        let reason = shown.reason.map(Cow::into_owned);
        Ok(Self {
            check: shown.check.into_owned(),
            scope: Scope::parse(&shown.node),
            object: shown.object.into_owned(),
            verdict: Verdict::parse(&shown.verdict, reason).map_err(serde::de::Error::custom)?,
            value: shown.value,
            threshold: shown.threshold,
            runbook: shown.runbook.map(Cow::into_owned),
        })
    }
}

/// The JSON's fields.
#[derive(Serialize, Deserialize)]
struct FindingJson<'a> {
    check: Cow<'a, str>,
    node: Cow<'a, str>,
    object: Cow<'a, str>,
    verdict: Cow<'a, str>,
    reason: Option<Cow<'a, str>>,
    value: Option<f64>,
    threshold: Option<f64>,
    runbook: Option<Cow<'a, str>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_back_as_it_is_written() {
        let verdicts = [
            Verdict::Ok,
            Verdict::Warning("w".to_owned()),
            Verdict::Critical("c".to_owned()),
            Verdict::Unknown("u".to_owned()),
        ];
        for verdict in verdicts {
            let mut finding = Finding::new("lag", Scope::Node("db2".to_owned()), "", verdict);
            finding.value = Some(1.5);
            finding.runbook = Some("runbooks/lag.md".to_owned());
            let json = serde_json::to_string(&finding).unwrap();
            assert_eq!(serde_json::from_str::<Finding>(&json).unwrap(), finding);
        }
    }
}
