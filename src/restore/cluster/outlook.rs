//! What `xdb restore` would do: which backup it would fetch, how long that takes, what is lost, and whether it can be done.

use std::path::{Path, PathBuf};

use super::target_directory::check_target_directory;
use crate::restore::plan::{
    Forecast, LATEST, Pick, Survey, Until, check_parts, check_restore_point, check_version,
    forecast, skipped_backups, survey,
};
use crate::restore::recover::refuse_root;
use crate::restore::scratch::{existing_ancestor, free_bytes, judge_space};
use crate::restore::{RestoreError, RestoreRecord, Setup};

/// A restore that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct RestoreRequest {
    pub directory: PathBuf,
    /// The newest, or the last one before `until`, where `None`.
    pub backup: Option<String>,
    pub until: Option<Until>,
}

/// A restore that was planned and not begun.
pub(crate) struct Outlook {
    pub forecast: Forecast,
    /// Newer backups that were not taken, each with what is known against it; empty where one was named.
    pub passed_over: Vec<String>,
    pub(super) survey: Survey,
    pub(super) record: RestoreRecord,
}

/// Whether this user may restore a cluster to `directory`; asks nothing of the bucket, and touches nothing.
///
/// # Errors
/// [`RestoreError::Refused`] for root, and where the directory cannot be taken.
pub(crate) fn check_target(directory: &Path) -> Result<(), RestoreError> {
    refuse_root()?;
    check_target_directory(directory)
}

/// Plans the restore to a directory that [`check_target`] found good; changes nothing.
///
/// # Errors
/// When it is refused, there is nothing to restore, or the bucket cannot be read.
pub(crate) async fn outlook(
    setup: &Setup,
    request: &RestoreRequest,
) -> Result<Outlook, RestoreError> {
    let mut record = RestoreRecord::default();
    let (backup, until) = (request.backup.as_deref(), request.until.as_ref());
    let survey = survey(setup, (backup, Pick::Good), until, &mut record).await?;
    // A typo of a restore point is found in the WAL sooner than by the replay.
    if matches!(until, Some(Until::Name(_))) {
        check_restore_point(&survey, until).await?;
    }
    let free = free_bytes(existing_ancestor(&request.directory))?;
    let is_named = backup.is_some_and(|name| name != LATEST);
    let passed_over = match is_named {
        true => Vec::new(),
        false => skipped_backups(&survey.catalog, &survey.plan.backup, until),
    };
    Ok(Outlook {
        passed_over,
        forecast: forecast(&survey, &request.directory, free).await,
        survey,
        record,
    })
}

impl Outlook {
    /// Whether it can be done: all the WAL on the way, the programs, the room, the backup's own parts.
    ///
    /// # Errors
    /// Why not.
    pub(crate) async fn judge(&mut self, setup: &Setup) -> Result<(), RestoreError> {
        let plan = &self.survey.plan;
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
        check_version(&setup.postgres().bin_directory, plan).await?;
        let live = setup.repository.data_directory();
        judge_space(plan.needed_bytes, &self.forecast.directory, live, &[])?;
        check_parts(&mut self.survey, &mut self.record.verifications).await
    }
}
