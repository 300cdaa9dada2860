//! Verdicts: the result of a check.

use serde::Serialize;

use super::ParseError;

/// The result of a check. Every verdict but ok has a reason, a sentence that an operator can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Warning(String),
    Critical(String),
    /// The check could not be made. It never counts as ok.
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

    /// Reads what [`Verdict::word`] and [`Verdict::reason`] gave.
    ///
    /// # Errors
    /// When `word` is not the word of a verdict.
    pub fn parse(word: &str, reason: Option<String>) -> Result<Self, ParseError> {
        let reason = reason.unwrap_or_default();
        match word {
            "ok" => Ok(Self::Ok),
            "warning" => Ok(Self::Warning(reason)),
            "critical" => Ok(Self::Critical(reason)),
            "unknown" => Ok(Self::Unknown(reason)),
            _ => Err(ParseError::new(
                word,
                "a verdict (ok, warning, critical or unknown)",
            )),
        }
    }

    /// Critical, unknown, warning, ok: unknown is worse than a warning, because it can hide anything.
    fn rank(&self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning(_) => 1,
            Self::Unknown(_) => 2,
            Self::Critical(_) => 3,
        }
    }

    /// The worst, and the first of equals; without any, ok.
    pub fn worst<'a>(verdicts: impl IntoIterator<Item = &'a Self>) -> Self {
        let worse = |worst: &'a Self, verdict: &'a Self| {
            if verdict.rank() > worst.rank() {
                verdict
            } else {
                worst
            }
        };
        verdicts.into_iter().fold(&Self::Ok, worse).clone()
    }
}

/// As JSON `{"verdict", "reason"}`.
impl Serialize for Verdict {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Shown<'a> {
            verdict: &'a str,
            reason: Option<&'a str>,
        }
        let (verdict, reason) = (self.word(), self.reason());
        Shown { verdict, reason }.serialize(serializer)
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
        struct VerificationJson<'a> {
            name: &'a str,
            verdict: &'a str,
            reason: Option<&'a str>,
        }
        let (verdict, reason) = (self.verdict.word(), self.verdict.reason());
        VerificationJson {
            name: &self.name,
            verdict,
            reason,
        }
        .serialize(serializer)
    }
}
