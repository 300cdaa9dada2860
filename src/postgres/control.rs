//! `pg_controldata`: what a data directory says of itself without a server.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::PostgresError;
use crate::model::{Lsn, SegmentSize, Timeline};
use crate::process;

/// The lines of `pg_controldata` that xdb uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlData {
    pub system_identifier: u64,
    pub timeline: Timeline,
    pub segment_size: SegmentSize,
    /// `data_checksums`: without them a flipped bit in a page cannot be found.
    pub checksums: bool,
    /// `max_connections` and its kin, by setting name: a recovering server needs at least these.
    pub limits: Vec<(&'static str, u32)>,
    pub wal_level: String,
    pub track_commit_timestamp: bool,
    /// Every transaction before this one had ended at the latest checkpoint.
    pub ended_before: u32,
}

/// Runs `pg_controldata` on `directory`.
///
/// # Errors
/// When the program cannot run, or `directory` is no data directory.
pub(crate) async fn control_data(
    bin_directory: &Path,
    directory: &Path,
) -> Result<ControlData, PostgresError> {
    let text = output(bin_directory, directory).await?;
    parse_control_data(&text).map_err(|missing| PostgresError::NotADataDirectory {
        directory: directory.to_owned(),
        reason: format!("no line {missing:?} in its output"),
    })
}

/// Where the primary in `directory` ended orderly: its timeline, and where its last checkpoint begins. `None` for one that
/// runs, crashed, or is a standby.
///
/// While WAL is archived, the segment before that is complete and the last.
///
/// # Errors
/// When the program cannot run, or `directory` is no data directory.
pub(crate) async fn ended_at(
    bin_directory: &Path,
    directory: &Path,
) -> Result<Option<(Timeline, Lsn)>, PostgresError> {
    let text = output(bin_directory, directory).await?;
    Ok(parse_ended_at(&text))
}

/// The timeline that the primary in `directory` is on: from the moment of a promotion, though its first checkpoint is later.
///
/// # Errors
/// When the program cannot run, or `directory` is no data directory.
pub(crate) async fn own_timeline(
    bin_directory: &Path,
    directory: &Path,
) -> Result<Timeline, PostgresError> {
    let text = output(bin_directory, directory).await?;
    parse_own_timeline(&text).ok_or_else(|| PostgresError::NotADataDirectory {
        directory: directory.to_owned(),
        reason: "no timeline in its output".to_owned(),
    })
}

fn parse_own_timeline(text: &str) -> Option<Timeline> {
    let lines = lines_of(text);
    let timeline = |key| lines.get(key)?.parse().ok();
    let checkpoint: u32 = timeline("Latest checkpoint's TimeLineID")?;
    // Written at the promotion, and zero after the checkpoint.
    let promoted = timeline("Min recovery ending loc's timeline")?;
    Some(Timeline(checkpoint.max(promoted)))
}

async fn output(bin_directory: &Path, directory: &Path) -> Result<String, PostgresError> {
    let mut command = process::command(bin_directory.join("pg_controldata"));
    command.env("LC_ALL", "C").arg("-D").arg(directory);
    let finished = process::run(command, Duration::from_secs(30)).await;
    let finished = finished.map_err(|source| PostgresError::ControlFile {
        directory: directory.to_owned(),
        source,
    })?;
    if !finished.status.success() {
        return Err(PostgresError::NotADataDirectory {
            directory: directory.to_owned(),
            reason: finished.last_words(),
        });
    }
    Ok(String::from_utf8_lossy(&finished.stdout).into_owned())
}

fn lines_of(text: &str) -> HashMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect()
}

fn parse_ended_at(text: &str) -> Option<(Timeline, Lsn)> {
    let lines = lines_of(text);
    if lines.get("Database cluster state") != Some(&"shut down") {
        return None;
    }
    let timeline = lines.get("Latest checkpoint's TimeLineID")?.parse().ok()?;
    let begins = lines.get("Latest checkpoint's REDO location")?;
    Some((Timeline(timeline), begins.parse().ok()?))
}

fn parse_control_data(text: &str) -> Result<ControlData, &'static str> {
    let lines = lines_of(text);
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
    // At a shutdown none runs, and 0 is written: then all have ended that began.
    let ended_before = |lines: &HashMap<&str, &str>| -> Option<u32> {
        let oldest = lines.get("Latest checkpoint's oldestActiveXID")?.parse();
        let next = lines.get("Latest checkpoint's NextXID")?.split_once(':')?.1;
        oldest
            .ok()
            .filter(|oldest| *oldest > 0)
            .or(next.parse().ok())
    };
    Ok(ControlData {
        system_identifier: number(&lines, "Database system identifier")?,
        timeline: Timeline(number(&lines, "Latest checkpoint's TimeLineID")?),
        segment_size: SegmentSize::new(number(&lines, bytes)?).map_err(|_| bytes)?,
        checksums: number::<u32>(&lines, "Data page checksum version")? != 0,
        limits,
        wal_level: (*lines.get("wal_level setting").ok_or("wal_level setting")?).to_owned(),
        track_commit_timestamp: lines.get("track_commit_timestamp setting") == Some(&"on"),
        ended_before: ended_before(&lines).ok_or("Latest checkpoint's NextXID")?,
    })
}

/// Which run of the server has `data_directory`: its process, and when it was started; `None` where none runs.
pub(crate) fn postmaster_run(data_directory: &Path) -> Option<String> {
    let file = std::fs::read_to_string(data_directory.join("postmaster.pid")).ok()?;
    Some(file.lines().take(3).collect::<Vec<_>>().join(" "))
}

/// What the server in `data_directory` is at: `starting`, `standby`, `ready` or `stopping`, as it writes into the eighth
/// line of `postmaster.pid` (`utils/pidfile.h`); `None` where none runs.
pub(crate) fn postmaster_status(data_directory: &Path) -> Option<String> {
    let file = std::fs::read_to_string(data_directory.join("postmaster.pid")).ok()?;
    let status = file.lines().nth(7)?.trim();
    Some(status.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Database system identifier:           7710528144203341750
Latest checkpoint's TimeLineID:       2
Latest checkpoint's NextXID:          0:749
Latest checkpoint's oldestActiveXID:  745
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
    fn a_primary_is_on_its_new_timeline_from_the_promotion_on() {
        for (checkpoint, promoted, own) in [(1, 0, 1), (1, 2, 2), (2, 0, 2)] {
            let text = format!(
                "Latest checkpoint's TimeLineID:       {checkpoint}\n\
                 Min recovery ending loc's timeline:   {promoted}\n"
            );
            assert_eq!(parse_own_timeline(&text), Some(Timeline(own)));
        }
        assert_eq!(parse_own_timeline(OUTPUT), None);
    }

    #[test]
    fn only_a_primary_that_was_shut_down_has_ended() {
        let at = |state: &str| {
            let text = format!(
                "Database cluster state:               {state}\nLatest checkpoint's REDO location:    0/7000028\n\
                 Latest checkpoint's TimeLineID:       2\n"
            );
            parse_ended_at(&text)
        };
        assert_eq!(at("shut down"), Some((Timeline(2), Lsn(0x700_0028))));
        for state in [
            "in production",
            "shut down in recovery",
            "in archive recovery",
        ] {
            assert_eq!(at(state), None, "{state}");
        }
        assert_eq!(parse_ended_at(OUTPUT), None);
    }

    #[test]
    fn the_lines_that_matter_are_read_by_name() {
        let control = parse_control_data(OUTPUT).unwrap();
        assert_eq!(control.system_identifier, 7_710_528_144_203_341_750);
        assert_eq!((control.timeline, control.checksums), (Timeline(2), true));
        assert!(control.limits.contains(&("max_prepared_transactions", 0)));
        assert_eq!(control.ended_before, 745);
        let shut_down = OUTPUT.replace("oldestActiveXID:  745", "oldestActiveXID:  0");
        assert_eq!(parse_control_data(&shut_down).unwrap().ended_before, 749);
    }

    #[test]
    fn a_missing_line_is_named() {
        let cut = OUTPUT.replace("Bytes per WAL segment", "Bytes");
        assert_eq!(parse_control_data(&cut), Err("Bytes per WAL segment"));
    }
}
