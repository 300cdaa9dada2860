//! Why a sample is missing.

use crate::log;
use crate::postgres::{Life, PostgresError};

/// Why the server could not be sampled, and what that proves of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SampleFailure {
    pub life: Life,
    /// As a sentence.
    pub reason: String,
}

impl From<PostgresError> for SampleFailure {
    fn from(error: PostgresError) -> Self {
        Self {
            life: error.life(),
            reason: log::chain(&error),
        }
    }
}
