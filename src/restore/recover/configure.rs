//! The configuration that a restored data directory is started with, made from the control file alone.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use crate::model::Timeline;
use crate::postgres::ControlData;
use crate::restore::RestoreError;
use crate::restore::plan::TargetSettings;
use crate::restore::scratch::{
    Scratch, TABLESPACE_MAP, allow_tablespace_links, has_tablespaces, wal_size_limits,
};

pub(crate) const SHARED_BUFFERS: &str = "128MB";

/// Files of the old server. With the last PostgreSQL would link to the old places of the tablespaces.
const REMOVED: [&str; 4] = [
    "standby.signal",
    "postmaster.pid",
    "postmaster.opts",
    TABLESPACE_MAP,
];

/// The settings of a recovery beside those from the control file.
pub(crate) struct RecoverySettings<'a> {
    pub timeline: Timeline,
    /// Where it stops, as settings; at the end of the archive where `None`.
    pub target: Option<TargetSettings>,
    pub restore_command: &'a str,
    /// It is kept and must outlive a power cut; that of a test is thrown away.
    pub durable: bool,
}

/// Writes the configuration that a restored data directory is started with, and takes away the one it brought.
///
/// A backup brings `postgresql.auto.conf` and, outside Debian, `postgresql.conf`: with them would come
/// `synchronous_standby_names` (hangs the first commit), `primary_conninfo`, archive commands, preloaded libraries.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn configure(
    scratch: &Scratch,
    control: &ControlData,
    recovery: &RecoverySettings<'_>,
) -> Result<(), RestoreError> {
    let data = scratch.data();
    let mut settings = settings(scratch, control, recovery);
    settings.push_str(io_method(major(&data)));
    if has_tablespaces(&data)? {
        settings.push_str("allow_in_place_tablespaces = on\n");
    }
    let files = [
        ("postgresql.conf", settings.as_str()),
        ("postgresql.auto.conf", ""),
        // The socket's directory lets only its owner in.
        ("pg_hba.conf", "local all all trust\n"),
        ("pg_ident.conf", ""),
        ("recovery.signal", ""),
    ];
    for (name, content) in files {
        write(&data.join(name), content)?;
    }
    for name in REMOVED {
        match fs::remove_file(data.join(name)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(RestoreError::File {
                    operation: "remove",
                    path: data.join(name),
                    source,
                });
            }
            _ => {}
        }
    }
    // Beside that `wal-fetch` looks for their records: should it miss one, PostgreSQL cannot link to a live directory.
    allow_tablespace_links(&data, false)?;
    own_pg_wal(&data.join("pg_wal"))
}

/// Where the live `pg_wal` is a link to another volume, a backup brings none, or the link: into the live WAL.
fn own_pg_wal(path: &Path) -> Result<(), RestoreError> {
    if path.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        return Ok(());
    }
    // Missing is what was wanted.
    let _ = fs::remove_file(path);
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.map_err(|source| RestoreError::File {
        operation: "make",
        path: path.to_owned(),
        source,
    })
}

/// The settings of every recovery.
fn common_settings(
    scratch: &Scratch,
    recovery: &RecoverySettings<'_>,
) -> Vec<(&'static str, String)> {
    let data = scratch.data();
    let in_data = |name: &str| quoted(&data.join(name).to_string_lossy());
    vec![
        ("listen_addresses", quoted("")),
        ("port", "5432".to_owned()),
        (
            "unix_socket_directories",
            quoted(&scratch.socket_directory().to_string_lossy()),
        ),
        ("unix_socket_permissions", "0700".to_owned()),
        ("hba_file", in_data("pg_hba.conf")),
        ("ident_file", in_data("pg_ident.conf")),
        ("ssl", "off".to_owned()),
        ("restore_command", quoted(recovery.restore_command)),
        (
            "recovery_target_timeline",
            quoted(&recovery.timeline.to_string()),
        ),
        ("recovery_target_action", "promote".to_owned()),
        // No queries before the end, so that no setting of the primary can stop the replay.
        ("hot_standby", "off".to_owned()),
        ("archive_mode", "off".to_owned()),
        ("synchronous_standby_names", quoted("")),
        ("max_logical_replication_workers", "0".to_owned()),
        ("event_triggers", "off".to_owned()),
        ("autovacuum", "off".to_owned()),
        ("huge_pages", "off".to_owned()),
        ("shared_buffers", SHARED_BUFFERS.to_owned()),
        // Its files go with the scratch directory, whatever kills the server.
        ("dynamic_shared_memory_type", "mmap".to_owned()),
        ("jit", "off".to_owned()),
        // A server that lost a process must end, and not answer queries after a crash recovery.
        ("restart_after_crash", "off".to_owned()),
        ("logging_collector", "off".to_owned()),
        ("log_destination", "stderr".to_owned()),
        ("log_line_prefix", quoted("%m ")),
        ("log_timezone", quoted("UTC")),
        ("lc_messages", quoted("C")),
        ("cluster_name", quoted("xdb restore")),
    ]
}

fn settings(scratch: &Scratch, control: &ControlData, recovery: &RecoverySettings<'_>) -> String {
    let mut settings = common_settings(scratch, recovery);
    let (least, most) = wal_size_limits(control.segment_size);
    // The segment that the replay stopped in is judged after the promotion.
    let kept = 2 * control.segment_size.mebibytes();
    let commits = if control.track_commit_timestamp {
        "on"
    } else {
        "off"
    };
    settings.extend([
        ("wal_level", control.wal_level.clone()),
        ("track_commit_timestamp", commits.to_owned()),
        ("min_wal_size", format!("{}MB", least >> 20)),
        ("max_wal_size", format!("{}MB", most >> 20)),
        ("wal_keep_size", format!("{kept}MB")),
    ]);
    if !recovery.durable {
        // The copy is removed: durability would cost time and prove nothing.
        let off = ["fsync", "full_page_writes", "synchronous_commit"];
        settings.extend(off.map(|name| (name, "off".to_owned())));
    }
    if let Some(target) = &recovery.target {
        let target = target.iter();
        settings.extend(target.map(|(name, value)| (*name, quoted(value))));
    }
    // From the control file, never from a template: with less, recovery stops.
    settings.extend(
        control
            .limits
            .iter()
            .map(|(name, value)| (*name, value.to_string())),
    );
    settings
        .iter()
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect()
}

/// The major version of the cluster in `data`; `None` where it cannot be read.
fn major(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("PG_VERSION"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// From PostgreSQL 18 on a server may be built to read by io_uring. Containers forbid that, and so does xdb for a server
/// that must reach no other.
fn io_method(major: Option<u32>) -> &'static str {
    match major {
        Some(major) if major >= 18 => "io_method = worker\n",
        _ => "",
    }
}

/// As postgresql.conf wants a value that may hold anything.
pub(crate) fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

/// `restore_command` for `xdb`, a path that the shell of PostgreSQL gets quoted.
pub(crate) fn restore_command(xdb: &Path) -> String {
    // PostgreSQL replaces %f, %p and %r, so a percent sign of the path is doubled.
    let path = xdb
        .to_string_lossy()
        .replace('%', "%%")
        .replace('\'', r"'\''");
    format!("'{path}' wal-fetch \"%f\" \"%p\"")
}

fn write(path: &Path, content: &str) -> Result<(), RestoreError> {
    // A link would lead the content to a live server's file, or nowhere.
    if path
        .symlink_metadata()
        .is_ok_and(|found| found.is_symlink())
    {
        let _ = fs::remove_file(path);
    }
    fs::write(path, content).map_err(|source| RestoreError::File {
        operation: "write",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_link_to_the_live_wal_is_replaced_and_a_directory_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let (live, wal) = (scratch.path().join("live"), scratch.path().join("pg_wal"));
        fs::create_dir(&live).unwrap();
        std::os::unix::fs::symlink(&live, &wal).unwrap();
        for _ in 0..2 {
            own_pg_wal(&wal).unwrap();
            assert!(wal.symlink_metadata().unwrap().is_dir());
            fs::write(wal.join("segment"), "").unwrap();
        }
        assert!(
            !live.join("segment").exists(),
            "the live WAL was written to"
        );
    }

    #[test]
    fn only_a_server_that_knows_the_setting_gets_it() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(io_method(major(data.path())), "");
        for (version, expected) in [
            ("17\n", ""),
            ("18\n", "io_method = worker\n"),
            ("19", "io_method = worker\n"),
        ] {
            fs::write(data.path().join("PG_VERSION"), version).unwrap();
            assert_eq!(io_method(major(data.path())), expected, "{version}");
        }
    }

    #[test]
    fn a_restore_command_survives_any_path() {
        assert_eq!(
            restore_command(Path::new("/usr/bin/xdb")),
            r#"'/usr/bin/xdb' wal-fetch "%f" "%p""#
        );
        assert_eq!(
            restore_command(Path::new("/a'b/5%/xdb")),
            r#"'/a'\''b/5%%/xdb' wal-fetch "%f" "%p""#
        );
        assert_eq!(quoted(r"it's \ here"), r"'it''s \\ here'");
    }
}
