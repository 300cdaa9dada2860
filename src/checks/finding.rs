//! What a check came to.

use serde::Serialize;

use super::Definition;
use crate::model::Verdict;

/// One check's verdict on one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// The check's name.
    pub check: String,
    /// What was judged, where a check sees several things: a pool, a standby, a row of a query.
    pub object: Option<String>,
    pub verdict: Verdict,
    pub runbook: String,
}

impl Finding {
    pub fn new(definition: &Definition, object: Option<String>, verdict: Verdict) -> Self {
        Self {
            check: definition.name.clone(),
            object,
            verdict,
            runbook: definition.runbook.clone(),
        }
    }
}

impl Serialize for Finding {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            check: &'a str,
            object: Option<&'a str>,
            verdict: &'a str,
            reason: Option<&'a str>,
            runbook: &'a str,
        }
        Shown {
            check: &self.check,
            object: self.object.as_deref(),
            verdict: self.verdict.word(),
            reason: self.verdict.reason(),
            runbook: &self.runbook,
        }
        .serialize(serializer)
    }
}
