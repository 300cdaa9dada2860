//! What a standby keeps a file for.

use std::fmt;

/// What a file waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waits {
    /// The primary has archived up to this segment, and not yet come to the file.
    Primary { archived: String },
    /// The primary has archived this later segment, and the bucket lacks the file.
    Passed { archived: String },
    /// No primary says how far it has archived.
    Unknown,
}

impl fmt::Display for Waits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary { archived } => write!(f, "the primary has archived up to {archived}"),
            Self::Passed { archived } => write!(
                f,
                "the primary has passed it without storing it and archived {archived}"
            ),
            Self::Unknown => f.write_str("how far the primary has archived is not known"),
        }
    }
}

impl Waits {
    /// What the operator can do.
    pub(in crate::archive) fn hint(&self) -> &'static str {
        match self {
            Self::Primary { .. } | Self::Unknown => {
                "PostgreSQL retries automatically; if it lasts, look at the primary's archiver: `xdb check archiver` there"
            }
            Self::Passed { .. } => {
                "the archive lacks it: this node's daemon stores it, or `xdb archive fill`; where no node has it whole: `xdb archive acknowledge`"
            }
        }
    }
}
