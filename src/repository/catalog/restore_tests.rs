//! What restore tests found of a backup.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What restore tests found of a backup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tests {
    /// The newest that counts, and the key of its proof.
    pub newest: Option<Tested>,
    pub key: Option<String>,
    /// The keys of newer proofs, none of which counts.
    pub passed_over: Vec<String>,
}

/// The newest restore test that judged a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    pub at: Timestamp,
    pub node: String,
    pub passed: bool,
    /// Why it failed.
    pub reason: Option<String>,
    /// It failed for what is not the backup: WAL that was missing then, which the listing tells better now, or an answer to a
    /// question of the caller's.
    pub spares_backup: bool,
    /// The segment in the archive that it found damaged.
    #[serde(default)]
    pub damaged_wal: Option<String>,
}

impl Tested {
    pub fn disproves(&self) -> bool {
        !self.passed && !self.spares_backup
    }

    pub fn failure(&self) -> Option<String> {
        let at = self.at.strftime("%F %T UTC");
        let reason = self.reason.as_deref().unwrap_or("it does not say why");
        (!self.passed)
            .then(|| format!("the restore test of {at} on {} failed: {reason}", self.node))
    }
}
