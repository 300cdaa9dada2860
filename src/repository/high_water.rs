//! The high-water mark: what a leading primary knows to be archived, kept in the bucket for those who come after it.

use std::path::Path;

use jiff::Timestamp;

use super::{HighWater, Repository, RepositoryError, Shared, SharedError, Timelines};
use crate::model::{ArchiveFile, Lsn, SegmentSize, Timeline, WalSegment};
use crate::postgres::Archiver;

impl Repository {
    /// Sets the mark to `segment`, unless it is there or further already; returns the mark that counts. A mark on a timeline
    /// that an operator declared forgotten is never further.
    ///
    /// # Errors
    /// When the bucket cannot be asked or written.
    pub async fn raise_high_water(
        &self,
        timelines: &Timelines,
        (hostname, system_identifier): (&str, u64),
        (segment, size): (WalSegment, SegmentSize),
        now: Timestamp,
    ) -> Result<HighWater, RepositoryError> {
        let repository = self.location.to_string();
        let (name, end) = (segment.name(size), segment.end(size));
        let mark = HighWater::new(
            (system_identifier, &repository),
            (segment.timeline, &name, end),
            hostname,
            now,
        );
        let stands = self.shared.raise_high_water(&mark, None).await?;
        if stands.timeline > mark.timeline && is_forgotten(timelines, &stands).await? {
            let above = Some(stands.timeline);
            return Ok(self.shared.raise_high_water(&mark, above).await?);
        }
        Ok(stands)
    }
}

impl Shared {
    /// The mark as it stands; the inner error says why there is none.
    ///
    /// # Errors
    /// When the bucket cannot be asked.
    pub async fn stated_high_water(&self) -> Result<Result<HighWater, String>, RepositoryError> {
        match self.high_water().await {
            Ok(Some(mark)) => Ok(Ok(mark)),
            Ok(None) => Ok(Err(
                "no primary's daemon has set a high-water mark".to_owned()
            )),
            Err(error @ SharedError::Content { .. }) => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }
}

/// A later promotion to the same number has a history of its own in the archive, and was not forgotten.
async fn is_forgotten(timelines: &Timelines, mark: &HighWater) -> Result<bool, RepositoryError> {
    let (identifier, timeline) = (mark.system_identifier, mark.timeline);
    let history = match timelines.stored_history(timeline).await? {
        None => None,
        Some(Some(history)) => Some(history),
        Some(None) => return Ok(false),
    };
    let forgotten = timelines.forgotten(identifier).await?;
    let found = forgotten.find(identifier, timeline, history.as_ref());
    Ok(matches!(found, Ok(Some(_))))
}

/// What is known of the server beside its marks.
#[derive(Debug)]
pub(crate) enum PositionSource {
    Archived(Archiver),
    /// It was shut down on this timeline, and archives: where its last checkpoint begins.
    EndedAt(Lsn),
    Nothing,
}

/// The last segment of `timeline` that PostgreSQL takes for archived; `None` where nothing tells.
///
/// `pg_stat_archiver` forgets with a crash, and the `.done` marks go with their segments at a checkpoint: the later of the two
/// counts. Neither need tell of the last segment of a server that was shut down, which is archived after all else.
pub(crate) fn last_archived(
    said: &PositionSource,
    data_directory: &Path,
    timeline: Timeline,
    size: SegmentSize,
) -> Option<WalSegment> {
    let marks = std::fs::read_dir(data_directory.join("pg_wal/archive_status"));
    let marks = marks.into_iter().flatten().flatten();
    let names = marks.filter_map(|mark| mark.file_name().into_string().ok());
    let parse = |name: &str| {
        let whole = ArchiveFile::of(name) == Some(ArchiveFile::Segment);
        let segment = whole.then(|| WalSegment::parse(name, size).ok()).flatten();
        // A standby's marks of timelines before its own promotion can mean that it streamed them, and no more.
        segment.filter(|segment| segment.timeline == timeline)
    };
    let (mut last, mut waiting) = (None, false);
    for name in names {
        match name.rsplit_once('.') {
            Some((name, "done")) => last = last.max(parse(name)),
            Some((name, "ready")) => waiting |= parse(name).is_some(),
            _ => {}
        }
    }
    let said = match said {
        PositionSource::Archived(archiver) => archiver.last_archived.as_deref().and_then(parse),
        PositionSource::EndedAt(at) if !waiting => {
            let next = WalSegment::holding(timeline, *at, size).number;
            let number = next.checked_sub(1);
            number.map(|number| WalSegment { timeline, number })
        }
        PositionSource::EndedAt(_) | PositionSource::Nothing => None,
    };
    last.max(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_later_of_what_postgresql_says_and_marks_is_taken_of_the_own_timeline() {
        let data = tempfile::tempdir().unwrap();
        let status = data.path().join("pg_wal/archive_status");
        let name = |timeline: u32, number: u64| format!("{timeline:08X}00000000{number:08X}");
        let last = |said: &PositionSource| {
            let size = SegmentSize::default();
            let last = last_archived(said, data.path(), Timeline(2), size);
            last.map(|segment| segment.number)
        };
        let ask = |said: Option<&str>| {
            last(&PositionSource::Archived(Archiver {
                last_archived: said.map(str::to_owned),
                ..Archiver::default()
            }))
        };
        assert_eq!(ask(None), None);
        assert_eq!(ask(Some(&name(2, 3))), Some(3));
        std::fs::create_dir_all(&status).unwrap();
        for mark in [
            format!("{}.done", name(2, 4)),
            format!("{}.ready", name(2, 6)),
            format!("{}.done", name(1, 9)),
            format!("{}.partial.done", name(2, 8)),
            "00000002.history.done".to_owned(),
        ] {
            std::fs::write(status.join(mark), "").unwrap();
        }
        for (said, expected) in [
            (None, 4),
            (Some(name(2, 3)), 4),
            (Some(name(2, 5)), 5),
            (Some(name(1, 12)), 4),
            (Some(format!("{}.00000028.backup", name(2, 5))), 4),
            (Some("00000002.history".to_owned()), 4),
        ] {
            assert_eq!(ask(said.as_deref()), Some(expected), "{said:?}");
        }
        // Of a server that ended all is archived once nothing waits.
        let ended = PositionSource::EndedAt(Lsn(7 * SegmentSize::default().bytes() + 40));
        assert_eq!(
            (last(&ended), last(&PositionSource::Nothing)),
            (Some(4), Some(4))
        );
        std::fs::remove_file(status.join(format!("{}.ready", name(2, 6)))).unwrap();
        assert_eq!(
            (last(&ended), last(&PositionSource::Nothing)),
            (Some(6), Some(4))
        );
    }
}
