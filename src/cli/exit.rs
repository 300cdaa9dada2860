//! Exit codes, one table for all verbs but `wal-push` and `wal-fetch`, and the last words before one.

use std::process::ExitCode;

use super::dump_target::TargetError;
use crate::archive::retention::RetentionError;
use crate::archive::{BackupError, FillError, WalError};
use crate::config::ConfigError;
use crate::daemon::DaemonError;
use crate::dump::DumpError;
use crate::log;
use crate::redis::RedisError;
use crate::repository::RepositoryError;
use crate::restore::{Conclusion, RestoreError, UntilError};
use crate::runner::{NotRun, RunnerError};
use crate::store::StoreError;
use crate::wait::WaitError;

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Good = 0,
    Bad = 1,
    Usage = 2,
    Refused = 3,
    CouldNot = 4,
    Interrupted = 130,
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// How a test ended is how its verb ends.
impl From<Conclusion> for Exit {
    fn from(conclusion: Conclusion) -> Self {
        match conclusion {
            Conclusion::Passed => Self::Good,
            Conclusion::Failed => Self::Bad,
            Conclusion::Refused => Self::Refused,
            Conclusion::Incomplete | Conclusion::NotRun => Self::CouldNot,
        }
    }
}

/// Prints `error`, its causes and what to do, and tells the exit code.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    complain(&log::chain(error.as_ref()), hint(error).as_deref());
    if error.is::<ConfigError>() || error.is::<WaitError>() {
        return Exit::Usage;
    }
    if error.is::<UntilError>() || error.is::<TargetError>() {
        return Exit::Usage;
    }
    if let Some(error) = error.downcast_ref::<RestoreError>() {
        return match error {
            RestoreError::Bad(_) | RestoreError::Unreachable { .. } => Exit::Bad,
            error if error.is_refusal() => Exit::Refused,
            _ => Exit::CouldNot,
        };
    }
    if let Some(error) = error.downcast_ref::<DumpError>() {
        return match error {
            DumpError::Placeholder(_) | DumpError::NoDatabase { .. } | DumpError::NoRetention => {
                Exit::Usage
            }
            error if error.is_busy() => Exit::Refused,
            DumpError::Clock { .. } => Exit::Refused,
            DumpError::Lock(lock) if lock.is_refusal() => Exit::Refused,
            DumpError::Failed { .. } => Exit::Bad,
            _ => Exit::CouldNot,
        };
    }
    if let Some(NotRun::Elsewhere { .. }) = error.downcast_ref() {
        return Exit::Refused;
    }
    if let Some(DaemonError::Running { .. }) = error.downcast_ref() {
        return Exit::Refused;
    }
    if let Some(error) = error.downcast_ref::<RepositoryError>() {
        return of_repository(error);
    }
    if let Some(error) = error.downcast_ref::<BackupError>() {
        return match error {
            BackupError::Repository(error) => of_repository(error),
            BackupError::Overtaken { .. } => Exit::Bad,
            _ => Exit::CouldNot,
        };
    }
    if let Some(FillError::Repository(error) | FillError::Wal(WalError::Repository(error))) =
        error.downcast_ref()
    {
        return of_repository(error);
    }
    match error.downcast_ref::<RetentionError>() {
        Some(RetentionError::Repository(error)) => of_repository(error),
        Some(RetentionError::NoRetention) => Exit::Usage,
        _ => Exit::CouldNot,
    }
}

fn of_repository(error: &RepositoryError) -> Exit {
    match error {
        RepositoryError::Refused { .. } => Exit::Refused,
        RepositoryError::Lock(lock) if lock.is_refusal() => Exit::Refused,
        RepositoryError::Placeholder(_) | RepositoryError::Ignored { .. } => Exit::Usage,
        _ => Exit::CouldNot,
    }
}

pub(crate) fn complain(message: &str, hint: Option<&str>) {
    let hints = hint.map(log::hints).unwrap_or_default();
    // Standard error may be closed; the exit code still tells.
    log::to_stderr(&format!("xdb: {message}\n{hints}"));
}

fn hint(error: &anyhow::Error) -> Option<String> {
    if let Some(error) = error.downcast_ref::<ConfigError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<DumpError>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<NotRun>() {
        return error.hint().map(str::to_owned);
    }
    if let Some(error) = error.downcast_ref::<DaemonError>() {
        return error.hint().map(str::to_owned);
    }
    if let Some(error) = error.downcast_ref::<RunnerError>() {
        return error.hint().map(str::to_owned);
    }
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return Some(error.hint().to_owned());
    }
    if let Some(error) = error.downcast_ref::<RedisError>() {
        return Some(error.hint().to_owned());
    }
    if let Some(error) = error.downcast_ref::<WaitError>() {
        return Some(error.hint().to_owned());
    }
    if let Some(error) = error.downcast_ref::<UntilError>() {
        return Some(error.hint());
    }
    if error.is::<TargetError>() {
        return Some(TargetError::HINT.to_owned());
    }
    if let Some(error) = error.downcast_ref::<RestoreError>() {
        return error.hint();
    }
    if let Some(error) = error.downcast_ref::<RepositoryError>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<BackupError>() {
        return Some(error.hint());
    }
    if let Some(error) = error.downcast_ref::<FillError>() {
        return error.hint();
    }
    let error = error.downcast_ref::<RetentionError>()?;
    Some(error.hint())
}
