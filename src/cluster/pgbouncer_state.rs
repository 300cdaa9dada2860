//! What this node's PgBouncer was last seen to do, and what may be served because of it. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What PgBouncer does for applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PgBouncerCondition {
    /// A login through it reached PostgreSQL.
    Serves,
    /// It answers, and xdb's own login through it fails: it is full, paused, or refuses that login.
    Lives,
    /// It does not answer, or no login through it reaches PostgreSQL.
    Silent,
    /// Nothing listens, or it says that it is shutting down.
    Gone,
}

/// One look at PgBouncer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PgBouncerState {
    pub at: Timestamp,
    pub condition: PgBouncerCondition,
    /// Why it is not [`PgBouncerCondition::Serves`].
    pub reason: Option<String>,
    /// The role that the server behind it reports; `None` where no answer was read.
    pub in_recovery: Option<bool>,
}

impl PgBouncerState {
    /// Applications may be served: PgBouncer is known to live.
    pub(crate) fn lives(&self) -> bool {
        matches!(
            self.condition,
            PgBouncerCondition::Serves | PgBouncerCondition::Lives
        )
    }

    /// As a sentence.
    pub(crate) fn reason(&self) -> &str {
        self.reason.as_deref().unwrap_or("no reason is known")
    }
}
