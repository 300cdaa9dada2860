//! The operator's standing questions to the restored data: a directory of `*.sql` files.
//!
//! The first line of a file is `-- database: NAME`; its query answers one row, a boolean and a detail.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio_postgres::{SimpleQueryMessage, SimpleQueryRow};

use super::sql::{in_words, is_of_node};
use crate::model::Verdict;
use crate::postgres::{self, PostgresError};
use crate::restore::recover::{ScratchServer, proven_damage};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assertion {
    /// Its name without the directory.
    pub file: String,
    /// The database to ask and the file's whole text, or why it cannot be asked.
    question: Result<Question, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    database: String,
    query: String,
}

/// The assertions of `directory`, by name; one that is missing has none.
///
/// # Errors
/// When the directory cannot be read.
pub(crate) fn read_assertions(directory: &Path) -> io::Result<Vec<Assertion>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let paths = entries.map(|entry| Ok(entry?.path()));
    let mut paths = paths.collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    paths.sort();
    let read = |path: &Path| {
        let text = fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"));
        Assertion {
            file: path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            question: text.and_then(parse_question),
        }
    };
    Ok(paths.iter().map(|path| read(path)).collect())
}

fn parse_question(text: String) -> Result<Question, String> {
    let first = text.lines().next().unwrap_or_default();
    let database = first.strip_prefix("--").map(str::trim_start);
    let database = database.and_then(|line| line.strip_prefix("database:"));
    match database.map(str::trim).filter(|name| !name.is_empty()) {
        Some(database) => Ok(Question {
            database: database.to_owned(),
            query: text,
        }),
        None => Err("its first line is not `-- database: NAME`".to_owned()),
    }
}

/// Asks `assertion` in a transaction that can write nothing; anything but one true is critical.
pub(crate) async fn check_assertion(
    server: &ScratchServer,
    assertion: &Assertion,
    limit: Duration,
) -> Verdict {
    let question = match &assertion.question {
        Ok(question) => question,
        Err(reason) => return Verdict::Unknown(reason.clone()),
    };
    match run_query(server, question, limit).await {
        Ok(rows) => judge_answer(&rows),
        Err(PostgresError::Connect { error, .. }) if is_no_database(&error) => {
            Verdict::Critical(format!(
                "there is no database {} in what was restored",
                question.database
            ))
        }
        Err(error) if let Some(words) = proven_damage(&error) => Verdict::Critical(words),
        // A query that did not run proves nothing.
        Err(error @ (PostgresError::Connect { .. } | PostgresError::Silent { .. })) => {
            Verdict::Unknown(error.to_string())
        }
        Err(error) if is_of_node(&error) => Verdict::Unknown(error.to_string()),
        Err(error) => Verdict::Critical(in_words(&error)),
    }
}

fn is_no_database(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| code.code() == "3D000")
}

/// What the rows answered, each a boolean and a detail.
type Row = (Option<String>, Option<String>);

async fn run_query(
    server: &ScratchServer,
    question: &Question,
    limit: Duration,
) -> Result<Vec<Row>, PostgresError> {
    let connection = postgres::connect(&server.target(&question.database), limit).await?;
    let what = "the assertion";
    let failed = |error| PostgresError::Query { what, error };
    connection
        .simple_query("BEGIN READ ONLY")
        .await
        .map_err(failed)?;
    let messages = connection.simple_query(&question.query).await;
    let cell = |row: &SimpleQueryRow, at| row.try_get(at).ok().flatten().map(str::to_owned);
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((cell(row, 0), cell(row, 1))),
        _ => None,
    };
    Ok(messages.map_err(failed)?.iter().filter_map(row).collect())
}

fn judge_answer(rows: &[Row]) -> Verdict {
    let reason = match rows {
        [] => "it returned no row".to_owned(),
        [(Some(answer), _)] if answer == "t" => return Verdict::Ok,
        [(Some(answer), detail)] if answer == "f" => {
            let detail = detail.as_deref().unwrap_or("it gives no detail");
            format!("false: {detail}")
        }
        [(answer, _)] => {
            let answer = answer.as_deref().unwrap_or("NULL");
            format!("it returned {answer}, which is neither true nor false")
        }
        several => format!("it returned {} rows, not one", several.len()),
    };
    Verdict::Critical(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_by_name_and_one_without_its_first_line_says_so() {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("b.sql", "-- database: shop\nSELECT true, 'x'"),
            ("a.sql", "SELECT true"),
            ("c.sql", "--database:  my shop \nSELECT true"),
            ("notes.txt", "-- database: shop"),
        ] {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let read = read_assertions(directory.path()).unwrap();
        let found: Vec<_> = read
            .iter()
            .map(|one| {
                (
                    one.file.as_str(),
                    one.question.as_ref().map(|q| q.database.as_str()),
                )
            })
            .collect();
        let reason = "its first line is not `-- database: NAME`".to_owned();
        assert_eq!(
            found,
            [
                ("a.sql", Err(&reason)),
                ("b.sql", Ok("shop")),
                ("c.sql", Ok("my shop"))
            ]
        );
        assert_eq!(read_assertions(&directory.path().join("none")).unwrap(), []);
    }

    #[test]
    fn only_one_row_that_is_true_is_good() {
        let row = |answer: Option<&str>| (answer.map(str::to_owned), Some("3 orders".to_owned()));
        for (rows, words) in [
            (vec![row(Some("t"))], ""),
            (vec![row(Some("f"))], "false: 3 orders"),
            (
                vec![row(None)],
                "it returned NULL, which is neither true nor false",
            ),
            (
                vec![row(Some("7"))],
                "it returned 7, which is neither true nor false",
            ),
            (vec![], "it returned no row"),
            (
                vec![row(Some("t")), row(Some("t"))],
                "it returned 2 rows, not one",
            ),
        ] {
            assert_eq!(
                judge_answer(&rows).reason().unwrap_or_default(),
                words,
                "{rows:?}"
            );
        }
    }
}
