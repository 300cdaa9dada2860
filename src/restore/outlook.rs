//! What `xdb restore` would do: which backup it would fetch, how long that takes, what is lost, and whether it can be done.

use std::path::PathBuf;

use super::forecast::{Forecast, forecast};
use super::plan::{self, Pick};
use super::preflight::{Found, judge_version, look, look_at_backup};
use super::report::Report;
use super::restore_point::judge_name;
use super::run::refuse_root;
use super::scratch::{free_bytes, reserve_bytes};
use super::until::Until;
use super::{RestoreError, target_directory};
use crate::restore::Setup;

/// A restore that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub directory: PathBuf,
    /// The newest, or the last one before `until`, where `None`.
    pub backup: Option<String>,
    pub until: Option<Until>,
}

/// A restore that was planned and not begun.
pub struct Outlook {
    pub forecast: Forecast,
    /// Newer backups that were not taken, each with what is known against it; empty where one was named.
    pub passed_over: Vec<String>,
    pub(super) found: Found,
    pub(super) report: Report,
}

/// Plans the restore; changes nothing.
///
/// # Errors
/// When it is refused, there is nothing to restore, or the bucket cannot be read.
pub async fn outlook(setup: &Setup, request: &Request) -> Result<Outlook, RestoreError> {
    refuse_root()?;
    target_directory::judge(&request.directory)?;
    let mut report = Report::default();
    let (backup, until) = (request.backup.as_deref(), request.until.as_ref());
    let found = look(setup, (backup, Pick::Good), until, &mut report).await?;
    // A typo of a restore point is found in the WAL sooner than by the replay.
    if matches!(until, Some(Until::Name(_))) {
        judge_name(&found, until).await?;
    }
    let free = free_bytes(target_directory::nearest(&request.directory))?;
    let is_named = backup.is_some_and(|name| name != plan::LATEST);
    let passed_over = match is_named {
        true => Vec::new(),
        false => plan::passed_over(&found.catalog, &found.plan.backup, until),
    };
    Ok(Outlook {
        passed_over,
        forecast: forecast(&found, &request.directory, free).await,
        found,
        report,
    })
}

impl Outlook {
    /// Whether it can be done: all the WAL on the way, the programs, the room, the backup's own parts.
    ///
    /// # Errors
    /// Why not.
    pub async fn judge(&mut self, setup: &Setup) -> Result<(), RestoreError> {
        let plan = &self.found.plan;
        if let Some(reason) = plan.gaps.reason() {
            let end = self.forecast.wal.as_ref().map(|wal| wal.to_lsn);
            return Err(RestoreError::Unreachable {
                reason: format!("the end of the archive cannot be reached: {reason}"),
                hint: match end {
                    Some(end) => {
                        format!(
                            "restore what lies before the gap with --until {end}; look for the missing segments in pg_wal of the old servers first"
                        )
                    }
                    None => {
                        "`xdb backup list` shows how far each backup can be recovered".to_owned()
                    }
                },
            });
        }
        judge_version(&setup.postgres().bin_directory, plan).await?;
        // On the disk of a live cluster some room is left to it.
        let (directory, free) = (&self.forecast.directory, self.forecast.free_bytes);
        let live = setup.repository.data_directory();
        let reserve = reserve_bytes(target_directory::nearest(directory), live);
        plan::judge_space(plan, directory, free, reserve, &[])?;
        look_at_backup(&mut self.found, &mut self.report).await
    }
}
