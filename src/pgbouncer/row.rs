//! A console row: text by column name.

use std::collections::BTreeMap;
use std::str::FromStr;

use tokio_postgres::SimpleQueryRow;

/// A row's values by column; NULL is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Row(BTreeMap<String, String>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RowError {
    #[error("there is no column {0}, or it is NULL")]
    Missing(String),
    #[error("{column} is {text:?}")]
    Value { column: String, text: String },
}

impl From<&SimpleQueryRow> for Row {
    fn from(row: &SimpleQueryRow) -> Self {
        let named =
            row.columns().iter().enumerate().filter_map(|(at, column)| {
                Some((column.name().to_owned(), row.get(at)?.to_owned()))
            });
        Self(named.collect())
    }
}

impl Row {
    /// # Errors
    /// When the column is missing, NULL, or not of this type.
    pub(crate) fn get<T: FromStr>(&self, column: &str) -> Result<T, RowError> {
        self.get_if_there(column)?
            .ok_or_else(|| RowError::Missing(column.to_owned()))
    }

    /// `None` when the column is missing (another release) or NULL.
    ///
    /// # Errors
    /// When the value is not of this type.
    pub(crate) fn get_if_there<T: FromStr>(&self, column: &str) -> Result<Option<T>, RowError> {
        let Some(text) = self.0.get(column) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| RowError::Value {
            column: column.to_owned(),
            text: text.clone(),
        })
    }
}

#[cfg(test)]
impl Row {
    pub(super) fn of(columns: &[(&str, &str)]) -> Self {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self(columns.iter().map(own).collect())
    }
}
