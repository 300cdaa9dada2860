//! `walrus`, of the crate `wal-rus` 0.4: it reads wal-g's settings, but not all of them, and ignores the rest silently.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::ProgramSettings;

/// Every `WALG_…` setting that walrus 0.4.1 reads (its `src/config`) and that `archive.settings` may hold.
const READ: &[&str] = &[
    "WALG_COMPRESSION_LEVEL",
    "WALG_DAEMON_WAL_UPLOAD_TIMEOUT",
    "WALG_DELTA_FROM_NAME",
    "WALG_DELTA_FROM_USER_DATA",
    "WALG_DELTA_ORIGIN",
    "WALG_DISK_RATE_LIMIT",
    "WALG_DOWNLOAD_CONCURRENCY",
    "WALG_DOWNLOAD_FILE_RETRIES",
    "WALG_FETCH_TARGET_USER_DATA",
    "WALG_LIBSODIUM_KEY",
    "WALG_LIBSODIUM_KEY_PATH",
    "WALG_LIBSODIUM_KEY_TRANSFORM",
    "WALG_LOG_LEVEL",
    "WALG_NETWORK_RATE_LIMIT",
    "WALG_PG_WAL_SIZE",
    "WALG_PREFETCH_DIR",
    "WALG_TAR_SIZE_THRESHOLD",
    "WALG_THREADS",
    "WALG_UPLOAD_CONCURRENCY",
    "WALG_UPLOAD_QUEUE",
    "WALG_USE_WAL_DELTA",
];

pub(super) fn backup_push(data_directory: &Path, full: bool) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["backup-push".into(), data_directory.into()];
    if full {
        arguments.push("--full".into());
    }
    arguments
}

/// An indented line of its list.
pub(super) fn listed_for_deletion(line: &str) -> Option<&str> {
    line.strip_prefix("  ")
}

/// `pg_wal/archive_status/NAME.ready`, which walrus renames to `.done` itself when it has stored the file.
///
/// PostgreSQL does that after `archive_command` and warns of each segment that it cannot. Putting the mark back after a
/// push that went well is safe at any moment: PostgreSQL asks again for what is ready, and gets the answer that it is stored.
#[derive(Debug)]
pub(crate) struct ReadyMark(PathBuf);

impl ReadyMark {
    /// The mark of the file at `path`; `None` where there is none to keep.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let name = format!("{}.ready", path.file_name()?.to_str()?);
        let mark = path.parent()?.join("archive_status").join(name);
        mark.exists().then_some(Self(mark))
    }

    pub(crate) fn put_back(self) {
        if !self.0.exists() {
            // Failing costs a warning in PostgreSQL's log, nothing else.
            let _ = std::fs::rename(self.0.with_extension("done"), &self.0);
        }
    }
}

/// The first part of `settings` that walrus would not heed.
pub(super) fn ignored_setting(settings: &ProgramSettings) -> Option<String> {
    if settings.s3.ca_cert_file.is_some() {
        return Some("s3.ca_cert_file".to_owned());
    }
    if settings.s3.server_side_encryption.is_some() {
        return Some("s3.server_side_encryption".to_owned());
    }
    let unread = settings
        .archive
        .settings
        .keys()
        .find(|name| !READ.contains(&name.as_str()));
    unread.map(|name| format!("archive.settings.{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_that_walrus_renamed_is_put_back() {
        let wal = tempfile::tempdir().unwrap();
        let status = wal.path().join("archive_status");
        std::fs::create_dir(&status).unwrap();
        let segment = wal.path().join("000000010000000000000003.00000028.backup");
        assert!(ReadyMark::of(&segment).is_none());
        let ready = status.join("000000010000000000000003.00000028.backup.ready");
        std::fs::write(&ready, "").unwrap();
        let mark = ReadyMark::of(&segment).unwrap();
        std::fs::rename(&ready, ready.with_extension("done")).unwrap();
        mark.put_back();
        assert!(ready.exists() && !ready.with_extension("done").exists());
    }
}
