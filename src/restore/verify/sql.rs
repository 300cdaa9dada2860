//! The operator's own questions to the restored data.

use std::time::Duration;

use tokio_postgres::SimpleQueryMessage;
use tokio_postgres::error::SqlState;

use crate::model::Verdict;
use crate::postgres::{self, PostgresError};
use crate::restore::recover::{ErrorCause, ScratchServer, error_cause, proven_damage};

/// A query that must answer true in `database` of the restored cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SqlCheck {
    pub database: String,
    pub query: String,
}

/// Asks `check`; anything but one true is critical.
pub(crate) async fn check_sql(
    server: &ScratchServer,
    check: &SqlCheck,
    limit: Duration,
) -> Verdict {
    match run_query(server, check, limit).await {
        Ok(Some(answer)) if answer == "t" => Verdict::Ok,
        Ok(Some(answer)) => Verdict::Critical(format!(
            "it answered {answer:?} in database {}, not true",
            check.database
        )),
        Ok(None) => Verdict::Critical(format!(
            "it answered nothing in database {}",
            check.database
        )),
        Err(error) if let Some(words) = proven_damage(&error) => Verdict::Critical(words),
        // A query that did not run proves nothing.
        Err(error @ (PostgresError::Connect { .. } | PostgresError::Silent { .. })) => {
            Verdict::Unknown(error.to_string())
        }
        Err(error) if is_of_node(&error) => Verdict::Unknown(error.to_string()),
        Err(error) => Verdict::Critical(in_words(&error)),
    }
}

/// The server went away, ran out of something or was stopped, this node lacks what the question needs, or it is put to a
/// server elsewhere: that says nothing of what it was asked for.
pub(super) fn is_of_node(error: &PostgresError) -> bool {
    if error_cause(error) == ErrorCause::Lacking {
        return true;
    }
    let PostgresError::Query { error, .. } = error else {
        return false;
    };
    // A copy dials nothing; a file of its own may have the wrong owner here.
    let is_of_here = error.as_db_error().is_some_and(|answer| {
        let message = answer.message();
        message.starts_with("foreign-data wrapper") && message.ends_with("has no handler")
            || message.starts_with("could not open file") && message.ends_with("Permission denied")
    });
    if is_of_here {
        return true;
    }
    let class = |code: &SqlState| code.code().get(..2).map(str::to_owned);
    let class = error.code().and_then(class);
    // insufficient_resources, operator_intervention, system_error.
    error.is_closed() || matches!(class.as_deref(), Some("53" | "57" | "58"))
}

/// A query's failure, with what the pinned `search_path` makes of a name without its schema.
pub(super) fn in_words(error: &PostgresError) -> String {
    match error {
        PostgresError::Query { error: cause, .. } if is_missing_name(cause) => {
            format!("{error}; search_path is empty here: name its schema, as in public.orders")
        }
        _ => error.to_string(),
    }
}

/// No such table or function.
fn is_missing_name(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| matches!(code.code(), "42P01" | "42883"))
}

async fn run_query(
    server: &ScratchServer,
    check: &SqlCheck,
    limit: Duration,
) -> Result<Option<String>, PostgresError> {
    let connection = postgres::connect(&server.target(&check.database), limit).await?;
    let what = "the query of --sql";
    let messages = connection
        .simple_query(&check.query)
        .await
        .map_err(|error| PostgresError::Query { what, error })?;
    Ok(messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
        _ => None,
    }))
}
