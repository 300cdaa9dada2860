//! The settings of a backup: set aside while xdb recovers it, then put back with those switched off that could harm the old
//! cluster, until an operator confirms the restored one.
//!
//! Values may be passwords (`primary_conninfo`, `archive_command`, settings of extensions). No value is printed, logged or
//! serialized; messages name the file that holds it.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;

use crate::postgres::ControlData;
use crate::restore::RestoreError;
use crate::restore::scratch::make_private;

const AUTO: &str = "postgresql.auto.conf";
const FILES: [&str; 4] = ["postgresql.conf", AUTO, "pg_hba.conf", "pg_ident.conf"];
/// A copy of the backup's `postgresql.auto.conf` in the restored data directory.
const OLD_AUTO: &str = "postgresql.auto.conf.brought";

/// Settings that keep a copy from what it must not do while the old cluster may be alive: store WAL, wait for its standbys,
/// follow it, consume its subscriptions, run workers and hooks of preloaded libraries, fire event triggers.
/// `ALTER SYSTEM RESET` removes each.
pub(crate) const HELD: [(&str, &str); 8] = [
    ("archive_mode", "'off'"),
    ("synchronous_standby_names", "''"),
    ("max_logical_replication_workers", "'0'"),
    ("primary_conninfo", "''"),
    ("shared_preload_libraries", "''"),
    ("session_preload_libraries", "''"),
    ("local_preload_libraries", "''"),
    ("event_triggers", "'off'"),
];

/// A setting of [`HELD`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HeldSetting {
    pub name: &'static str,
    /// The file in the data directory with the line that `ALTER SYSTEM` had written for it, which a reset does not bring
    /// back; `None` where a reset is enough.
    pub was: Option<&'static str>,
}

/// What [`put_back_settings`] did.
#[derive(Debug, Clone, Default)]
pub(crate) struct RestoredSettings {
    pub held: Vec<HeldSetting>,
    /// Files that the backup lacks; xdb wrote minimal ones.
    pub made: Vec<&'static str>,
}

/// Beginnings of the names of settings of the old cluster's recovery.
const RECOVERY: [&str; 5] = [
    "primary_",
    "recovery_",
    "restore_command",
    "archive_cleanup_command",
    "archive_mode",
];

/// Moves the backup's settings from `data` to `aside`.
///
/// # Errors
/// When a file cannot be moved.
pub(crate) fn set_aside_settings(data: &Path, aside: &Path) -> Result<(), RestoreError> {
    make_private(aside)?;
    for name in FILES {
        rename(&data.join(name), &aside.join(name))?;
    }
    Ok(())
}

/// Copies them back over the settings that xdb recovered with. `aside` stays unchanged, so that this can be repeated.
///
/// Files that the backup lacks, as on Debian, which keeps them in /etc, are written with the least that starts a server.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn put_back_settings(
    data: &Path,
    aside: &Path,
    control: &ControlData,
) -> Result<RestoredSettings, RestoreError> {
    let least = [
        ("postgresql.conf", Some(least(control))),
        ("pg_hba.conf", Some("local all all peer\n".to_owned())),
        ("pg_ident.conf", None),
    ];
    for (name, least) in least {
        let content = read(&aside.join(name))?.or(least.map(String::into_bytes));
        if let Some(content) = content {
            write(&data.join(name), &content)?;
        }
    }
    if let Some(content) = read(&aside.join(AUTO))? {
        write(&data.join(OLD_AUTO), &content)?;
    }
    let auto = auto(aside)?;
    write(&data.join(AUTO), held(&auto).as_bytes())?;
    // It names the work directory.
    let options = data.join("postmaster.opts");
    match fs::remove_file(&options) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(failed("remove", &options, error));
        }
        _ => {}
    }
    held_settings(aside)
}

/// The result of [`put_back_settings`] with `aside`, without doing it.
///
/// # Errors
/// When a file cannot be read.
pub(crate) fn held_settings(aside: &Path) -> Result<RestoredSettings, RestoreError> {
    let auto = auto(aside)?;
    let made = ["postgresql.conf", "pg_hba.conf"];
    Ok(RestoredSettings {
        held: HELD.map(|(name, _)| held_back(name, &auto)).into(),
        made: made
            .into_iter()
            .filter(|name| !aside.join(name).exists())
            .collect(),
    })
}

fn auto(aside: &Path) -> Result<String, RestoreError> {
    let brought = read(&aside.join(AUTO))?.unwrap_or_default();
    // A byte that is not UTF-8 must not end a restore of hours.
    Ok(String::from_utf8_lossy(&brought).into_owned())
}

/// Renames an unusable file `name` in `data`, and writes the least that starts a server in its place. Returns the new name.
///
/// # Errors
/// When it cannot be moved or written.
pub(crate) fn replace_settings_file(
    data: &Path,
    name: &str,
    control: &ControlData,
) -> Result<String, RestoreError> {
    let unusable = format!("{name}.brought");
    let kept = read(&data.join(name))?.unwrap_or_default();
    write(&data.join(&unusable), &kept)?;
    write(&data.join(name), least(control).as_bytes())?;
    Ok(unusable)
}

fn held_back(name: &'static str, brought: &str) -> HeldSetting {
    let sets = |line: &str| {
        let key = line.split_once('=').map(|(key, _)| key.trim());
        key.is_some_and(|key| key.eq_ignore_ascii_case(name))
    };
    // A primary streams from no server.
    let is_given_back = name != "primary_conninfo" && brought.lines().any(sets);
    HeldSetting {
        name,
        was: is_given_back.then_some(OLD_AUTO),
    }
}

/// The backup's settings of `ALTER SYSTEM` without those of the old cluster's recovery, and with [`HELD`].
fn held(brought: &str) -> String {
    let is_kept = |line: &&str| {
        let line = line.trim_start().to_ascii_lowercase();
        let of_recovery = RECOVERY.iter().any(|name| line.starts_with(name));
        let is_held = HELD.iter().any(|(name, _)| line.starts_with(name));
        !of_recovery && !is_held
    };
    let kept = brought.lines().filter(is_kept);
    let mut text: String = kept.map(|line| format!("{line}\n")).collect();
    for (name, value) in HELD {
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

/// With lower limits than those of the control file, the next recovery would stop.
fn least(control: &ControlData) -> String {
    let limits = control.limits.iter();
    let limits: String = limits
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect();
    let wal = match control.segment_size.mebibytes() {
        mebibytes if mebibytes > 16 => {
            // As initdb writes them; the defaults are too little for two segments of 64 MiB.
            let (least, most) = (5 * mebibytes, 64 * mebibytes);
            format!("min_wal_size = {least}MB\nmax_wal_size = {most}MB\n")
        }
        _ => String::new(),
    };
    format!(
        "# Written by xdb restore: the backup has no usable postgresql.conf.\n{limits}{wal}wal_level = {}\n",
        control.wal_level
    )
}

/// Moves `from` to `to`; a missing file is no error.
fn rename(from: &Path, to: &Path) -> Result<(), RestoreError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("move", from, error)),
        _ => Ok(()),
    }
}

/// `None` where the file is missing.
fn read(path: &Path) -> Result<Option<Vec<u8>>, RestoreError> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some).map_err(|error| failed("read", path, error)),
    }
}

/// Writes a file with mode 0600, as PostgreSQL does, and replaces an older one atomically.
fn write(path: &Path, content: &[u8]) -> Result<(), RestoreError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(&new)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|source| {
        let _ = fs::remove_file(&new);
        failed("write", path, source)
    })
}

fn failed(operation: &'static str, path: &Path, source: std::io::Error) -> RestoreError {
    RestoreError::File {
        operation,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::cluster::fixtures::control;

    #[test]
    fn what_alter_system_set_is_kept_but_for_the_old_clusters_recovery_and_archiving() {
        let brought = "# Do not edit this file manually!\nwork_mem = '32MB'\narchive_mode = 'always'\n\
                       primary_conninfo = 'host=db1'\nPrimary_slot_name = 'db2'\nrecovery_target_time = 'x'\n\
                       archive_command = 'xdb wal-push \"%p\"'\nsynchronous_standby_names = 'db2'\n";
        assert_eq!(
            held(brought),
            "# Do not edit this file manually!\nwork_mem = '32MB'\narchive_command = 'xdb wal-push \"%p\"'\n\
             archive_mode = 'off'\nsynchronous_standby_names = ''\nmax_logical_replication_workers = '0'\n\
             primary_conninfo = ''\nshared_preload_libraries = ''\nsession_preload_libraries = ''\n\
             local_preload_libraries = ''\nevent_triggers = 'off'\n"
        );
        for (name, was) in [
            ("archive_mode", true),
            ("synchronous_standby_names", true),
            ("max_logical_replication_workers", false),
            ("primary_conninfo", false),
        ] {
            let held = held_back(name, brought);
            assert_eq!(held.was, was.then_some(OLD_AUTO), "{name}");
        }
    }

    #[test]
    fn brought_settings_come_back_and_missing_ones_are_the_least_that_starts() {
        let parent = tempfile::tempdir().unwrap();
        let (data, aside) = (parent.path().join("data"), parent.path().join("aside"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("pg_hba.conf"), "theirs").unwrap();
        let auto =
            "work_mem = '1MB'\narchive_mode = 'always'\nprimary_conninfo = 'password=secret'\n";
        fs::write(data.join(AUTO), auto).unwrap();
        set_aside_settings(&data, &aside).unwrap();
        for name in FILES {
            assert!(!data.join(name).exists(), "{name}");
            fs::write(data.join(name), "xdb's own").unwrap();
        }
        let read = |name: &str| fs::read_to_string(data.join(name)).unwrap();
        // A repetition, as after a full disk, has the same result.
        for _ in 0..2 {
            let back = put_back_settings(&data, &aside, &control()).unwrap();
            assert_eq!(back.made, ["postgresql.conf"]);
            let printed = format!("{back:?}{}", serde_json::to_string(&back.held).unwrap());
            assert!(
                !printed.contains("secret") && !printed.contains("always"),
                "{printed}"
            );
            assert_eq!(read("pg_hba.conf"), "theirs");
            assert!(read("postgresql.conf").contains("max_connections = 50\n"));
            assert!(read(AUTO).starts_with("work_mem = '1MB'\narchive_mode = 'off'\n"));
            assert!(!read(AUTO).contains("secret"));
            assert_eq!(read(OLD_AUTO), auto);
        }
        let replaced = replace_settings_file(&data, "pg_hba.conf", &control()).unwrap();
        assert_eq!(read(&replaced), "theirs");
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_what_was_there() {
        let parent = tempfile::tempdir().unwrap();
        let (data, aside) = (parent.path().join("data"), parent.path().join("aside"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join(AUTO), "theirs").unwrap();
        set_aside_settings(&data, &aside).unwrap();
        fs::write(data.join(AUTO), "xdb's own").unwrap();
        // No file can be made under that name.
        fs::create_dir(data.join(format!("{AUTO}.new"))).unwrap();
        put_back_settings(&data, &aside, &control()).unwrap_err();
        let read = |path: &Path| fs::read_to_string(path.join(AUTO)).unwrap();
        assert_eq!(
            (read(&data).as_str(), read(&aside).as_str()),
            ("xdb's own", "theirs")
        );
        fs::remove_dir(data.join(format!("{AUTO}.new"))).unwrap();
        put_back_settings(&data, &aside, &control()).unwrap();
    }
}
