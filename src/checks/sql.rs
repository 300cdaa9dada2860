//! Checks of kind `sql`: which query is asked, and how its rows are read. Pure.

use super::Measure;
use super::SampleError;
use super::trace::Answer;
use super::values::Sampled;

/// A query whose rows are judged: column `value`, and optionally `object` and `detail`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SqlCheck {
    /// By the server's major version, lowest first; never empty.
    pub queries: Vec<VersionedQuery>,
    pub databases: Databases,
    pub measure: Measure,
}

/// A query, and the oldest server that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionedQuery {
    /// The major version, such as 17; 0 is every server.
    pub from_version: u32,
    pub sql: String,
}

/// Where a query is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Databases {
    /// In `postgres.database`: what it asks for is the same in all of them.
    Instance,
    Each,
    Named(String),
}

impl SqlCheck {
    /// The query for a server of this `server_version_num`.
    ///
    /// # Errors
    /// When the file has none for it.
    pub(super) fn query(&self, version: u32) -> Result<&str, SampleError> {
        let major = version / 10_000;
        let fitting = self.queries.iter().rev();
        let mut fitting = fitting.filter(|query| query.from_version <= major);
        let query = fitting.next().map(|query| query.sql.as_str());
        query.ok_or(SampleError::NoQuery { major })
    }
}

/// Reads the rows; their objects begin with `database` where the check asks each.
///
/// # Errors
/// When there is no column `value`.
pub(super) fn read_values(
    answer: &Answer,
    database: Option<&str>,
) -> Result<Vec<Sampled>, SampleError> {
    let position = |name: &str| answer.columns.iter().position(|column| column == name);
    let at = position("value").ok_or(SampleError::NoValue)?;
    let (object, detail) = (position("object"), position("detail"));
    let read = |row: &Vec<Option<String>>| {
        let text = |at: Option<usize>| row.get(at?)?.clone().filter(|text| !text.is_empty());
        let object = match (database, text(object)) {
            (None, object) => object,
            (Some(database), None) => Some(database.to_owned()),
            (Some(database), Some(object)) => Some(format!("{database}/{object}")),
        };
        Sampled {
            object,
            number: Sampled::parse(row.get(at).and_then(|text| text.as_deref())),
            detail: text(detail),
        }
    };
    Ok(answer.rows.iter().map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Limits;

    #[test]
    fn the_query_is_the_newest_that_the_server_knows() {
        let query = |from_version, sql: &str| VersionedQuery {
            from_version,
            sql: sql.to_owned(),
        };
        let check = SqlCheck {
            queries: vec![query(14, "old"), query(17, "new")],
            databases: Databases::Instance,
            measure: Measure {
                unit: String::new(),
                limits: Limits::default(),
                may_be_empty: false,
                increase: None,
            },
        };
        for (version, expected) in [
            (140_005, Some("old")),
            (160_001, Some("old")),
            (170_000, Some("new")),
            (180_001, Some("new")),
            (130_020, None),
        ] {
            assert_eq!(check.query(version).ok(), expected, "{version}");
        }
        let error = check.query(130_020).unwrap_err().to_string();
        assert!(error.contains("PostgreSQL 13"), "{error}");
    }

    #[test]
    fn rows_are_read_by_column_and_named_by_their_database() {
        let text = |text: &str| Some(text.to_owned());
        let answer = Answer {
            columns: ["detail", "value", "object"].map(str::to_owned).to_vec(),
            rows: vec![
                vec![text("why"), text("5"), text("a")],
                vec![None, None, None],
            ],
        };
        let values = read_values(&answer, Some("shop")).unwrap();
        let objects: Vec<_> = values.iter().map(|one| one.object.as_deref()).collect();
        assert_eq!(objects, [Some("shop/a"), Some("shop")]);
        assert_eq!(values[0].number, Ok(5.0));
        assert_eq!(values[0].detail.as_deref(), Some("why"));
        assert!(values[1].number.is_err());
        let nothing = Answer {
            columns: vec!["object".to_owned()],
            rows: Vec::new(),
        };
        assert!(matches!(
            read_values(&nothing, None),
            Err(SampleError::NoValue)
        ));
    }
}
