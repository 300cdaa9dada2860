//! The archived copy of the segment that a replay stopped in: it shows whether the archive ends there or is damaged.

use std::path::{Path, PathBuf};

use crate::model::{Lsn, WalSegment};
use crate::repository::catalog::{decompressed, is_read};
use crate::repository::{RepositoryError, judge_file};
use crate::restore::plan::Survey;
use crate::restore::scratch::Scratch;

/// The archived copy of the segment that a replay stopped in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StopSegment {
    Here(PathBuf),
    /// It was read, and its content is not that segment.
    Damaged(String),
    /// It could not be read, so its content is unknown.
    Unread(String),
}

/// The archived copy of the segment that the replay stopped in, at `recovered`. It is fetched again where PostgreSQL did
/// not keep it. `None` where the archive lists no WAL past `recovered`.
pub(crate) async fn find_stop_segment(
    scratch: &Scratch,
    survey: &Survey,
    recovered: Lsn,
) -> Option<StopSegment> {
    let (path, wal) = (&survey.plan.path, &survey.catalog.wal);
    path.newest.filter(|last| recovered < last.end(wal.size))?;
    // Of a segment that several timelines have, PostgreSQL takes the newest.
    let timelines = wal.runs.range(survey.plan.backup.timeline..=path.timeline);
    let of = |timeline| WalSegment::holding(timeline, recovered, wal.size);
    let segments: Vec<_> = timelines.rev().map(|(timeline, _)| of(*timeline)).collect();
    let kept = |segment: &WalSegment| {
        let name = segment.name(wal.size);
        scratch.data().join("pg_wal").join(name)
    };
    if let Some(kept) = segments.iter().map(kept).find(|kept| kept.exists()) {
        return Some(StopSegment::Here(kept));
    }
    let mut listed = segments
        .iter()
        .filter(|segment| wal.get(**segment).is_some());
    // A segment that was not listed was a gap then; the recovery passed it.
    let segment = listed.next().or(segments.first())?;
    let name = segment.name(wal.size);
    let fetched = fetch_segment(scratch, survey, &name).await;
    Some(fetched.unwrap_or_else(|error| StopSegment::Unread(crate::log::chain(&error))))
}

async fn fetch_segment(
    scratch: &Scratch,
    survey: &Survey,
    name: &str,
) -> Result<StopSegment, RepositoryError> {
    let stored = survey.repository.stored_as(name).await?;
    let Some(object) = stored.first() else {
        let reason = format!("the bucket holds no {name} any more");
        return Ok(StopSegment::Unread(reason));
    };
    if survey.repository.program.encrypts() || !is_read(&object.key) {
        let reason = format!("xdb cannot decode {}", object.key);
        return Ok(StopSegment::Unread(reason));
    }
    let bytes = survey.repository.bucket.get(&object.key).await?;
    let cluster = survey.plan.sentinel.system_identifier;
    Ok(keep_unpacked(
        &object.key,
        name,
        &bytes,
        cluster,
        scratch.path(),
    ))
}

/// Unpacks the object `key`, whose content is `stored`, to the segment `name` in `directory`. Only content that was read and
/// is wrong is damage.
fn keep_unpacked(
    key: &str,
    name: &str,
    stored: &[u8],
    cluster: Option<u64>,
    directory: &Path,
) -> StopSegment {
    let content = match decompressed(key, stored) {
        Ok(content) => content,
        Err(reason) => return StopSegment::Damaged(format!("{name}: {reason}")),
    };
    let path = directory.join(name);
    if let Err(error) = std::fs::write(&path, content) {
        return StopSegment::Unread(format!("cannot write {}: {error}", path.display()));
    }
    match judge_file(name, &path, cluster) {
        Ok(()) => StopSegment::Here(path),
        Err(reason) => StopSegment::Damaged(format!("{name}: {reason}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_arrived_and_is_wrong_is_damage() {
        let directory = tempfile::tempdir().unwrap();
        let name = "000000010000000000000003";
        let keep = |key: &str, stored: &[u8], directory: &Path| {
            keep_unpacked(key, name, stored, None, directory)
        };
        for (key, stored) in [("w/3", &b"no segment"[..]), ("w/3.lz4", b"no frame")] {
            let kept = keep(key, stored, directory.path());
            assert!(matches!(kept, StopSegment::Damaged(_)), "{key}: {kept:?}");
        }
        let kept = keep("w/3", b"x", &directory.path().join("gone"));
        assert!(matches!(kept, StopSegment::Unread(_)), "{kept:?}");
    }
}
