//! `walrus`, of the crate `wal-rus` 0.4: it reads wal-g's settings, but not all of them, and ignores the rest silently.

use std::ffi::OsString;
use std::path::Path;

use crate::config::Config;

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

/// The first part of `config` that walrus would not heed.
pub(super) fn ignored_setting(config: &Config) -> Option<String> {
    if config.s3.ca_cert_file.is_some() {
        return Some("s3.ca_cert_file".to_owned());
    }
    let unread = config
        .archive
        .settings
        .keys()
        .find(|name| !READ.contains(&name.as_str()));
    unread.map(|name| format!("archive.settings.{name}"))
}
