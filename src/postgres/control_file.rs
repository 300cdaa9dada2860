//! `global/pg_control` itself, where starting `pg_controldata` would take too long: the fields that have stood at one place
//! since PostgreSQL 11 (`catalog/pg_control.h`).

use std::path::Path;

use crate::model::{ArchiveFile, Lsn, SegmentSize, Timeline};

/// What the server says of its own state (`DBState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServerState {
    /// A primary that runs, shuts down, or was shut down.
    Primary,
    /// A standby, or a server that restores from the archive.
    Recovery,
    /// It starts, or repeats its own WAL after a crash.
    Starting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControlFile {
    pub system_identifier: u64,
    pub state: ServerState,
    /// Where the last checkpoint's record is: the server has written at least as much.
    pub checkpoint: Lsn,
    /// The highest timeline that the server has used.
    pub timeline: Timeline,
}

/// Reads `global/pg_control` below `data_directory`; `None` where it cannot be read.
pub(crate) fn control_file(data_directory: &Path) -> Option<ControlFile> {
    let bytes = std::fs::read(data_directory.join("global/pg_control")).ok()?;
    parse(&bytes)
}

/// The segment size of the server in `data_directory`, by the files in its `pg_wal`; the default where there are none.
pub(crate) fn segment_size_in(data_directory: &Path) -> SegmentSize {
    let entries = std::fs::read_dir(data_directory.join("pg_wal"));
    let files = entries.into_iter().flatten().flatten();
    let mut segments = files.filter(|file| {
        let name = file.file_name();
        name.to_str().and_then(ArchiveFile::of) == Some(ArchiveFile::Segment)
    });
    let size = segments.find_map(|file| SegmentSize::new(file.metadata().ok()?.len()).ok());
    size.unwrap_or_default()
}

/// Numbers stand in the byte order of the server, which runs on this machine.
fn parse(bytes: &[u8]) -> Option<ControlFile> {
    let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let short = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    // PG_CONTROL_VERSION of 12 to 18; from 13 on `minRecoveryPointTLI` stands at 144.
    let version = short(8)?;
    if !(1201..=1800).contains(&version) {
        return None;
    }
    let checkpoint_timeline = short(48)?;
    // A promotion writes its new timeline here first, and the checkpoint minutes later.
    let recovery_timeline = if version >= 1300 { short(144)? } else { 0 };
    Some(ControlFile {
        system_identifier: long(0)?,
        state: match short(16)? {
            1 | 3 | 6 => ServerState::Primary,
            2 | 5 => ServerState::Recovery,
            _ => ServerState::Starting,
        },
        checkpoint: Lsn(long(32)?),
        timeline: Timeline(checkpoint_timeline.max(recovery_timeline)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: u32, state: u32, timelines: (u32, u32)) -> Vec<u8> {
        let mut bytes = vec![0; 8192];
        let mut put = |at: usize, content: &[u8]| {
            bytes[at..at + content.len()].copy_from_slice(content);
        };
        put(0, &7_710_554_067_872_419_855_u64.to_ne_bytes());
        put(8, &version.to_ne_bytes());
        put(16, &state.to_ne_bytes());
        put(32, &0x0500_0028_u64.to_ne_bytes());
        put(48, &timelines.0.to_ne_bytes());
        put(144, &timelines.1.to_ne_bytes());
        bytes
    }

    #[test]
    fn the_control_file_tells_the_state_and_the_highest_timeline() {
        use ServerState::{Primary, Recovery, Starting};
        for (state, expected) in [
            (0, Starting),
            (1, Primary),
            (2, Recovery),
            (3, Primary),
            (4, Starting),
            (5, Recovery),
            (6, Primary),
        ] {
            let read = parse(&file(1300, state, (1, 0))).unwrap();
            assert_eq!(read.state, expected, "{state}");
            assert_eq!(read.system_identifier, 7_710_554_067_872_419_855);
            assert_eq!(read.checkpoint, Lsn(0x0500_0028));
            assert_eq!(read.timeline, Timeline(1));
        }
        let promoted = parse(&file(1300, 6, (1, 2))).unwrap();
        assert_eq!(promoted.timeline, Timeline(2));
        assert_eq!(parse(&file(9999, 6, (1, 0))), None);
        assert_eq!(parse(b"short"), None);
        assert_eq!(control_file(Path::new("/nowhere")), None);
    }
}
