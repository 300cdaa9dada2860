//! `pg_controldata`: what a data directory says of itself without a server.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::PostgresError;
use crate::model::{SegmentSize, Timeline};
use crate::process;

/// The lines of `pg_controldata` that xdb uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlData {
    pub system_identifier: u64,
    pub timeline: Timeline,
    pub segment_size: SegmentSize,
    /// `data_checksums`: without them a flipped bit in a page cannot be found.
    pub checksums: bool,
    /// `max_connections` and its kin, by setting name: a recovering server needs at least these.
    pub limits: Vec<(&'static str, u32)>,
    pub wal_level: String,
    pub track_commit_timestamp: bool,
}

/// Runs `pg_controldata` on `directory`.
///
/// # Errors
/// When the program cannot run, or `directory` is no data directory.
pub async fn control_data(
    bin_directory: &Path,
    directory: &Path,
) -> Result<ControlData, PostgresError> {
    let mut command = process::command(bin_directory.join("pg_controldata"));
    command.env("LC_ALL", "C").arg("-D").arg(directory);
    let finished = process::run(command, Duration::from_secs(30)).await;
    let finished = finished.map_err(|source| PostgresError::ControlFile {
        directory: directory.to_owned(),
        source,
    })?;
    let refused = |reason| PostgresError::NotADataDirectory {
        directory: directory.to_owned(),
        reason,
    };
    if !finished.status.success() {
        return Err(refused(finished.last_words()));
    }
    let text = String::from_utf8_lossy(&finished.stdout);
    parse_control_data(&text)
        .map_err(|missing| refused(format!("no line {missing:?} in its output")))
}

fn parse_control_data(text: &str) -> Result<ControlData, &'static str> {
    let lines: HashMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    fn number<T: std::str::FromStr>(
        lines: &HashMap<&str, &str>,
        key: &'static str,
    ) -> Result<T, &'static str> {
        lines
            .get(key)
            .and_then(|value| value.parse().ok())
            .ok_or(key)
    }
    let limits = [
        ("max_connections", "max_connections setting"),
        ("max_worker_processes", "max_worker_processes setting"),
        ("max_wal_senders", "max_wal_senders setting"),
        ("max_prepared_transactions", "max_prepared_xacts setting"),
        ("max_locks_per_transaction", "max_locks_per_xact setting"),
    ];
    let limits = limits
        .into_iter()
        .map(|(name, line)| Ok((name, number(&lines, line)?)))
        .collect::<Result<_, &'static str>>()?;
    let bytes = "Bytes per WAL segment";
    Ok(ControlData {
        system_identifier: number(&lines, "Database system identifier")?,
        timeline: Timeline(number(&lines, "Latest checkpoint's TimeLineID")?),
        segment_size: SegmentSize::new(number(&lines, bytes)?).map_err(|_| bytes)?,
        checksums: number::<u32>(&lines, "Data page checksum version")? != 0,
        limits,
        wal_level: (*lines.get("wal_level setting").ok_or("wal_level setting")?).to_owned(),
        track_commit_timestamp: lines.get("track_commit_timestamp setting") == Some(&"on"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Database system identifier:           7710528144203341750
Latest checkpoint's TimeLineID:       2
wal_level setting:                    replica
max_connections setting:              100
max_worker_processes setting:         8
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
track_commit_timestamp setting:       off
Bytes per WAL segment:                16777216
Data page checksum version:           1
";

    #[test]
    fn the_lines_that_matter_are_read_by_name() {
        let control = parse_control_data(OUTPUT).unwrap();
        assert_eq!(control.system_identifier, 7_710_528_144_203_341_750);
        assert_eq!((control.timeline, control.checksums), (Timeline(2), true));
        assert!(control.limits.contains(&("max_prepared_transactions", 0)));
    }

    #[test]
    fn a_missing_line_is_named() {
        let cut = OUTPUT.replace("Bytes per WAL segment", "Bytes");
        assert_eq!(parse_control_data(&cut), Err("Bytes per WAL segment"));
    }
}
