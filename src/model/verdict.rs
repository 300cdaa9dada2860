//! Verdicts: what a look at something came to.

use serde::Serialize;

/// What a look came to; every verdict but ok says why, as a sentence an operator can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Warning(String),
    Critical(String),
    /// "I could not look": never to be read as ok.
    Unknown(String),
}

impl Verdict {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning(_) => "warning",
            Self::Critical(_) => "critical",
            Self::Unknown(_) => "unknown",
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Ok => None,
            Self::Warning(reason) | Self::Critical(reason) | Self::Unknown(reason) => Some(reason),
        }
    }
}

/// One named thing that was looked at, as JSON `{"name", "verdict", "reason"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    pub name: String,
    pub verdict: Verdict,
}

impl Verification {
    pub fn new(name: impl Into<String>, verdict: Verdict) -> Self {
        Self {
            name: name.into(),
            verdict,
        }
    }
}

impl Serialize for Verification {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            name: &'a str,
            verdict: &'a str,
            reason: Option<&'a str>,
        }
        let (verdict, reason) = (self.verdict.word(), self.verdict.reason());
        Shown {
            name: &self.name,
            verdict,
            reason,
        }
        .serialize(serializer)
    }
}
