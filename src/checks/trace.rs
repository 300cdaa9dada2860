//! What a check asked, and what it was answered: for `xdb check NAME --explain`.

use std::sync::{Mutex, PoisonError};

/// The rows of one answer as text; `None` is NULL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Answer {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Answer {
    /// A column's text in the first row; `None` when it is missing or NULL.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        self.cell(self.rows.first()?, name)
    }

    /// The same of any row.
    pub(super) fn cell<'a>(&self, row: &'a [Option<String>], name: &str) -> Option<&'a str> {
        let at = self.columns.iter().position(|column| column == name)?;
        row.get(at)?.as_deref()
    }
}

/// One question of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Whom, as "PostgreSQL 17, database app" or "PgBouncer".
    pub of: String,
    pub question: String,
    /// Why there is none, otherwise.
    pub answer: Result<Answer, String>,
}

/// Collects what is asked, where somebody wants to know.
#[derive(Debug, Default)]
pub(crate) struct Trace(Option<Mutex<Vec<Asked>>>);

impl Trace {
    /// One that collects.
    pub(crate) fn new() -> Self {
        Self(Some(Mutex::default()))
    }

    pub(super) fn saw(&self, asked: impl FnOnce() -> Asked) {
        if let Some(all) = &self.0 {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(asked());
        }
    }

    pub(crate) fn taken(self) -> Vec<Asked> {
        let all = self.0.unwrap_or_default();
        all.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
