//! What lies where in the target directory of a restore, and whether the cluster in it has recovered.

use std::path::{Path, PathBuf};

use crate::postgres::control_file;
use crate::restore::scratch::Marker;

/// Where the work is done; it stays after `kill -9`.
pub(crate) const WORK: &str = "xdb-restore";
/// The data directory in it.
pub(crate) const DATA: &str = "data";
/// The settings that the backup brought.
const ASIDE: &str = "brought";
/// PostgreSQL takes no directory without it for a data directory.
pub(crate) const LAST: &str = "PG_VERSION";

/// Where `work` keeps the settings that the backup brought.
pub(crate) fn aside_directory(work: &Path) -> PathBuf {
    work.join(ASIDE)
}

/// Whether the cluster in `directory` has recovered: PostgreSQL removes `backup_label` when a recovery begins,
/// `recovery.signal` when it ends, and then writes a checkpoint on its new timeline.
///
/// Until that checkpoint, which may take minutes, a start would replay the old timeline again, past the recovery's target.
pub(crate) fn has_recovered(directory: &Path) -> bool {
    let work = directory.join(WORK);
    let is_here = |name: &str| work.join(DATA).join(name).exists() || directory.join(name).exists();
    directory.join(LAST).exists()
        || aside_directory(&work).is_dir()
            && is_here("global/pg_control")
            && !is_here("recovery.signal")
            && !is_here("backup_label")
            && is_on_new_timeline(directory)
}

fn is_on_new_timeline(directory: &Path) -> bool {
    let work = directory.join(WORK);
    // Unknown where an older xdb wrote the marker, and where the control file is of an unknown version.
    let Some(recovered) = Marker::of(&work).and_then(|marker| marker.timeline) else {
        return true;
    };
    let control = control_file(&work.join(DATA)).or_else(|| control_file(directory));
    control.is_none_or(|control| control.timeline > recovered)
}
