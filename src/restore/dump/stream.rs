//! Streams an object of a set into `pg_restore`: for dump tests, and for restores that are kept.

use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStdin, Command};

use super::program_messages::ProgramErrors;
use crate::dump::{ObjectError, ObjectReader};
use crate::process::{self, Finished, ProcessError};

/// What `pg_restore` made of an object. The object itself is proven only by [`ObjectReader::finish`].
pub(super) struct Streamed {
    pub finished: Finished,
    /// Why it failed; `None` where everything was restored but for views that could not be filled.
    pub error: Option<String>,
    /// Materialized views that read another server; the dump holds none of their rows.
    pub not_filled: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// Runs `pg_restore` with `object` as its input, until it ends: it need not read all of it.
///
/// # Errors
/// When the object cannot be read, or the program not be started.
pub(super) async fn stream(
    pg_restore: Command,
    object: &mut ObjectReader,
) -> Result<Streamed, StreamError> {
    let mut complaints = ProgramErrors::default();
    let fed = process::feed_and_watch(
        pg_restore,
        async |stdin| pour(object, stdin).await,
        |line| complaints.read(line),
    );
    let (finished, ()) = fed.await?;
    let (error, not_filled) = complaints.judge();
    // It exits with 1 after errors that it went past.
    let went_past = finished.status.code() == Some(1) && !not_filled.is_empty();
    let ended_well = finished.status.success() || went_past;
    let error = error.or_else(|| (!ended_well).then(|| finished.status.to_string()));
    Ok(Streamed {
        finished,
        error,
        not_filled,
    })
}

async fn pour(object: &mut ObjectReader, mut stdin: ChildStdin) -> Result<(), StreamError> {
    while let Some(piece) = object.next().await? {
        // Where the program has ended, its exit status shows why.
        if stdin.write_all(&piece).await.is_err() {
            break;
        }
    }
    Ok(())
}
