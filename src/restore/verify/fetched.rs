//! Whether what was fetched is a whole cluster, and safe to start.

use std::path::Path;

use super::files::{judge_files, restored_files};
use super::label::judge_label;
use crate::model::Verdict;
use crate::postgres::{self, ControlData, PostgresError};
use crate::restore::plan::Survey;
use crate::restore::recover::{clear_links, judge_links};
use crate::restore::scratch::check_fetched_tablespaces;
use crate::restore::{RestoreError, Verifications};

/// Judges the data directory that was fetched, and removes the links in it; with `with_files`, all files that the backup
/// lists must be there.
///
/// # Errors
/// When it is not whole, or a server on it could write to live files.
pub(crate) async fn check_fetched(
    verifications: &mut Verifications,
    bin: &Path,
    data: &Path,
    survey: &Survey,
    with_files: bool,
) -> Result<ControlData, RestoreError> {
    let plan = &survey.plan;
    check_fetched_tablespaces(data, &plan.sentinel.tablespaces)?;
    let unreadable = |source| RestoreError::File {
        operation: "read",
        path: data.to_owned(),
        source,
    };
    let label = std::fs::read_to_string(data.join("backup_label")).ok();
    let label = judge_label(label.as_deref(), &plan.backup, &plan.sentinel);
    let mut whole = label == Verdict::Ok;
    verifications.add("backup_label", label);
    if with_files {
        let files = restored_files(data).map_err(unreadable)?;
        let files = judge_files(&survey.listed, &files);
        whole &= !matches!(files, Verdict::Critical(_));
        verifications.add("files", files);
    }
    let removed = clear_links(data).map_err(unreadable)?;
    verifications.add_unless_ok("links", judge_links(&removed));
    match postgres::control_data(bin, data).await {
        Ok(control) if whole => Ok(control),
        Ok(_) => Err(RestoreError::Bad(
            "what was fetched is not whole".to_owned(),
        )),
        Err(error @ PostgresError::NotADataDirectory { .. }) => Err(RestoreError::Bad(format!(
            "what was fetched is no data directory: {error}"
        ))),
        Err(error) => Err(error.into()),
    }
}
