//! The settings that a backup brought: set aside while xdb recovers it, put back with what must stay off until a person
//! confirms the restored cluster.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::Serialize;

use super::RestoreError;
use crate::postgres::ControlData;

const AUTO: &str = "postgresql.auto.conf";
const FILES: [&str; 4] = ["postgresql.conf", AUTO, "pg_hba.conf", "pg_ident.conf"];

/// What a copy must not do while the old cluster may be alive: store WAL, wait for its standbys, follow it, consume its
/// subscriptions, run workers and hooks of preloaded libraries, fire event triggers. `ALTER SYSTEM RESET` of each ends that.
pub const HELD: [(&str, &str); 8] = [
    ("archive_mode", "'off'"),
    ("synchronous_standby_names", "''"),
    ("max_logical_replication_workers", "'0'"),
    ("primary_conninfo", "''"),
    ("shared_preload_libraries", "''"),
    ("session_preload_libraries", "''"),
    ("local_preload_libraries", "''"),
    ("event_triggers", "'off'"),
];

/// Each name of their lists is quoted by itself: `ALTER SYSTEM` would take one string for one name.
const LISTS: [&str; 3] = [
    "shared_preload_libraries",
    "session_preload_libraries",
    "local_preload_libraries",
];

/// A setting of [`HELD`], and what ends that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Held {
    pub name: &'static str,
    /// What `ALTER SYSTEM` had set it to, as SQL; where it had not, a reset brings back what other files say.
    pub was: Option<String>,
}

/// What `put_back` did.
#[derive(Debug, Clone, Default)]
pub struct PutBack {
    pub held: Vec<Held>,
    /// Files that the backup brought none of, and that were made with the least that starts the server.
    pub made: Vec<&'static str>,
}

/// Of the old cluster's recovery, whatever begins so.
const RECOVERY: [&str; 5] = [
    "primary_",
    "recovery_",
    "restore_command",
    "archive_cleanup_command",
    "archive_mode",
];

/// Moves what the backup brought from `data` to `aside`.
///
/// # Errors
/// When a file cannot be moved.
pub fn set_aside(data: &Path, aside: &Path) -> Result<(), RestoreError> {
    super::scratch::make_private(aside)?;
    for name in FILES {
        rename(&data.join(name), &aside.join(name))?;
    }
    Ok(())
}

/// Moves it back in place of what xdb recovered with.
///
/// Where the backup brought none, as on Debian, which keeps them in /etc, the least that starts the server is written.
///
/// # Errors
/// When a file cannot be moved, read or written.
pub fn put_back(data: &Path, aside: &Path, control: &ControlData) -> Result<PutBack, RestoreError> {
    let brought = match fs::read(aside.join(AUTO)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        read => read.map_err(|source| failed("read", &aside.join(AUTO), source))?,
    };
    // Not for one odd byte is a restore of hours given up.
    let brought = String::from_utf8_lossy(&brought);
    let least = [
        ("postgresql.conf", least(control)),
        ("pg_hba.conf", "local all all peer\n".to_owned()),
    ];
    let mut made = Vec::new();
    for (name, content) in least {
        write(&data.join(name), &content)?;
        if !aside.join(name).exists() {
            made.push(name);
        }
    }
    for name in FILES.into_iter().filter(|name| *name != AUTO) {
        rename(&aside.join(name), &data.join(name))?;
    }
    write(&data.join(AUTO), &held(&brought))?;
    // It names the directory that the recovery was done in.
    let options = data.join("postmaster.opts");
    match fs::remove_file(&options) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", &options, error)),
        _ => Ok(PutBack {
            held: HELD.map(|(name, _)| held_back(name, &brought)).into(),
            made,
        }),
    }
}

/// Moves a `name` that cannot be used aside within `data`, and makes the least that starts the server in its place.
/// Returns its new name.
///
/// # Errors
/// When it cannot be moved or written.
pub fn replace(data: &Path, name: &str, control: &ControlData) -> Result<String, RestoreError> {
    let unusable = format!("{name}.brought");
    rename(&data.join(name), &data.join(&unusable))?;
    write(&data.join(name), &least(control))?;
    Ok(unusable)
}

fn held_back(name: &'static str, brought: &str) -> Held {
    let value = |line: &str| {
        let (key, value) = line.split_once('=')?;
        let same = key.trim().eq_ignore_ascii_case(name);
        same.then(|| value.trim().to_owned())
    };
    // PostgreSQL takes the last.
    let was = brought.lines().rev().find_map(value);
    Held {
        name,
        was: was.and_then(|was| match LISTS.contains(&name) {
            true => list(&was),
            false => Some(was),
        }),
    }
}

/// The libraries of `value`, as `postgresql.auto.conf` has it, each as a string; `None` where there is none.
fn list(value: &str) -> Option<String> {
    let value = value.strip_prefix('\'').unwrap_or(value);
    let value = value.strip_suffix('\'').unwrap_or(value);
    let value = value.replace("''", "'");
    let mut names = vec![String::new()];
    let mut quoted = false;
    for character in value.chars() {
        match (character, quoted, names.last_mut()) {
            ('"', _, _) => quoted = !quoted,
            (',', false, _) => names.push(String::new()),
            (_, _, Some(name)) => name.push(character),
            (_, _, None) => {}
        }
    }
    let names: Vec<String> = names
        .iter()
        .map(|name| name.trim())
        .filter(|name| !name.is_empty())
        .map(|name| format!("'{}'", name.replace('\'', "''")))
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The settings of `ALTER SYSTEM` that were `brought`, without what is of the old cluster's recovery, and with [`HELD`].
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

/// With less than the numbers of the control file the next recovery would stop.
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
        "# Written by xdb restore: the backup brought no postgresql.conf.\n{limits}{wal}wal_level = {}\n",
        control.wal_level
    )
}

/// Moves `from` to `to`, where there is one.
fn rename(from: &Path, to: &Path) -> Result<(), RestoreError> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("move", from, error)),
        _ => Ok(()),
    }
}

/// As PostgreSQL makes it: for nobody else to read.
fn write(path: &Path, content: &str) -> Result<(), RestoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    // One that recovery was configured by is there already, open to others.
    let _ = fs::remove_file(path);
    let opened = options.open(path);
    let written = opened.and_then(|mut file| file.write_all(content.as_bytes()));
    written.map_err(|source| failed("write", path, source))
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
    use crate::model::{SegmentSize, Timeline};

    fn control() -> ControlData {
        ControlData {
            system_identifier: 7,
            timeline: Timeline(1),
            segment_size: SegmentSize::default(),
            checksums: true,
            ended_before: 745,
            limits: vec![("max_connections", 50)],
            wal_level: "replica".to_owned(),
            track_commit_timestamp: false,
        }
    }

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
            ("archive_mode", Some("'always'")),
            ("synchronous_standby_names", Some("'db2'")),
            ("max_logical_replication_workers", None),
        ] {
            assert_eq!(held_back(name, brought).was.as_deref(), was, "{name}");
        }
    }

    #[test]
    fn libraries_are_given_back_one_by_one() {
        let was = |line: &str| held_back("shared_preload_libraries", line).was;
        for (value, expected) in [
            ("'pg_cron'", Some("'pg_cron'")),
            (
                "'pg_stat_statements, pg_cron'",
                Some("'pg_stat_statements', 'pg_cron'"),
            ),
            (
                r#"'"a, b", $libdir/it''s'"#,
                Some("'a, b', '$libdir/it''s'"),
            ),
            ("''", None),
            (r#"'""'"#, None),
        ] {
            let brought = format!("shared_preload_libraries = {value}\n");
            assert_eq!(was(&brought).as_deref(), expected, "{value}");
        }
    }

    #[test]
    fn brought_settings_come_back_and_missing_ones_are_the_least_that_starts() {
        let parent = tempfile::tempdir().unwrap();
        let (data, aside) = (parent.path().join("data"), parent.path().join("aside"));
        fs::create_dir(&data).unwrap();
        fs::write(data.join("pg_hba.conf"), "theirs").unwrap();
        fs::write(data.join(AUTO), "work_mem = '1MB'\n").unwrap();
        set_aside(&data, &aside).unwrap();
        for name in FILES {
            assert!(!data.join(name).exists(), "{name}");
            fs::write(data.join(name), "xdb's own").unwrap();
        }
        let back = put_back(&data, &aside, &control()).unwrap();
        assert_eq!(back.made, ["postgresql.conf"]);
        let read = |name: &str| fs::read_to_string(data.join(name)).unwrap();
        assert_eq!(read("pg_hba.conf"), "theirs");
        assert!(read("postgresql.conf").contains("max_connections = 50\n"));
        assert!(read(AUTO).starts_with("work_mem = '1MB'\narchive_mode = 'off'\n"));
    }
}
