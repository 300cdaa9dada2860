//! How far a primary has written its WAL, by `pg_wal` itself, for when the server does not say (`access/xlog_internal.h`).
//!
//! Every page begins with its own address, and PostgreSQL fills a page with zeros before it writes records to it. A segment
//! that was recycled holds pages of other addresses until they are written.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::model::{Lsn, SegmentSize, Timeline, WalSegment};

/// `XLogLongPageHeaderData`, which begins a segment.
const LONG_HEADER: usize = 40;
/// Records begin at multiples of this.
const ALIGNED: u64 = 8;

/// A lower bound of what the primary with `system_identifier` has written on `timeline`, at least `from`; `None` where `pg_wal`
/// of `data_directory` shows no WAL of it behind that.
pub(crate) fn written_after(
    data_directory: &Path,
    system_identifier: u64,
    timeline: Timeline,
    from: Lsn,
) -> Option<Lsn> {
    let wal = data_directory.join("pg_wal");
    let of_timeline = timeline.history_file();
    let of_timeline = of_timeline.get(..8)?;
    let entries = std::fs::read_dir(&wal).ok()?.flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names
        .filter(|name| name.len() == 24 && name.starts_with(of_timeline))
        .collect();
    // The last ones may be recycled and not written yet.
    names.sort_unstable_by(|one, other| other.cmp(one));
    let written = names.iter().find_map(|name| {
        let segment = Segment::open(&wal.join(name), name, system_identifier)?;
        segment.written()
    });
    written.filter(|written| *written > from)
}

/// A segment whose first page is written.
struct Segment {
    file: File,
    timeline: Timeline,
    start: Lsn,
    bytes: u64,
    page_bytes: usize,
}

impl Segment {
    fn open(path: &Path, name: &str, system_identifier: u64) -> Option<Self> {
        let file = File::open(path).ok()?;
        let bytes = file.metadata().ok()?.len();
        let size = SegmentSize::new(bytes).ok()?;
        let segment = WalSegment::parse(name, size).ok()?;
        let mut header = [0; LONG_HEADER];
        file.read_exact_at(&mut header, 0).ok()?;
        let is_ours = long(&header, 24)? == system_identifier;
        let page_bytes = usize::try_from(short(&header, 36)?).ok()?;
        let is_page = (1024..=1 << 16).contains(&page_bytes) && page_bytes.is_power_of_two();
        let opened = Self {
            file,
            timeline: segment.timeline,
            start: segment.start(size),
            bytes,
            page_bytes,
        };
        (is_ours && is_page && opened.is_address(&header, 0)).then_some(opened)
    }

    fn is_address(&self, header: &[u8], page: u64) -> bool {
        // Up to the switch, the first segment of a timeline holds pages of the timeline before.
        let timeline = short(header, 4);
        timeline.is_some_and(|timeline| (1..=self.timeline.0).contains(&timeline))
            && long(header, 8) == Some(self.start.0 + page * self.page_bytes as u64)
    }

    fn read(&self, page: u64) -> Option<Vec<u8>> {
        let mut bytes = vec![0; self.page_bytes];
        let at = page * self.page_bytes as u64;
        self.file.read_exact_at(&mut bytes, at).ok()?;
        self.is_address(&bytes, page).then_some(bytes)
    }

    /// The end of the last page that is written: its last byte that is not zero.
    fn written(&self) -> Option<Lsn> {
        // Pages are written in order. `first` is written, `behind` is not.
        let (mut first, mut behind) = (0, self.bytes / self.page_bytes as u64);
        while behind - first > 1 {
            let middle = first + (behind - first) / 2;
            if self.read(middle).is_some() {
                first = middle;
            } else {
                behind = middle;
            }
        }
        let last = self.read(first)?;
        let used = last.iter().rposition(|byte| *byte != 0)? as u64 + 1;
        let at = self.start.0 + first * self.page_bytes as u64 + used;
        Some(Lsn(at.next_multiple_of(ALIGNED)))
    }
}

/// Numbers stand in the byte order of the server, which runs on this machine.
fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn short(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 8192;
    const SEGMENT: usize = 1 << 20;

    /// Writes the segment `name` with `pages` written pages at `start`, the last of which ends after `used` bytes.
    fn segment(wal: &Path, name: &str, start: u64, (pages, used): (usize, usize)) {
        let mut bytes = vec![0_u8; SEGMENT];
        for (index, page) in bytes.chunks_mut(PAGE).enumerate() {
            let address = start + (index * PAGE) as u64;
            // A recycled page keeps the address that it had.
            let address = if index < pages { address } else { 0x10_0000 };
            page[4..8].copy_from_slice(&1_u32.to_ne_bytes());
            page[8..16].copy_from_slice(&address.to_ne_bytes());
            if index == 0 {
                page[24..32].copy_from_slice(&7_u64.to_ne_bytes());
                page[32..36].copy_from_slice(&(1_u32 << 20).to_ne_bytes());
                page[36..40].copy_from_slice(&8192_u32.to_ne_bytes());
            }
            let end = if index + 1 == pages { used } else { PAGE };
            page[LONG_HEADER..end].fill(1);
        }
        std::fs::write(wal.join(name), bytes).unwrap();
    }

    #[test]
    fn a_primary_has_written_up_to_the_last_page_of_its_own_address() {
        let data = tempfile::tempdir().unwrap();
        let wal = data.path().join("pg_wal");
        std::fs::create_dir(&wal).unwrap();
        let written = |identifier, timeline, from| {
            written_after(data.path(), identifier, Timeline(timeline), Lsn(from))
        };
        assert_eq!(written(7, 1, 0), None, "no segment");
        segment(&wal, "000000010000000000000005", 0x50_0000, (128, PAGE));
        segment(&wal, "000000010000000000000006", 0x60_0000, (3, 100));
        // Recycled, and not written yet; and of another timeline.
        segment(&wal, "000000010000000000000007", 0x70_0000, (0, PAGE));
        segment(&wal, "000000020000000000000009", 0x90_0000, (9, PAGE));
        let end = 0x60_0000 + 2 * PAGE as u64 + 104;
        for (what, identifier, timeline, from, expected) in [
            ("from before", 7, 1, 0x50_1000, Some(end)),
            ("from just before", 7, 1, end - 8, Some(end)),
            ("nothing more", 7, 1, end, None),
            ("another cluster", 8, 1, 0, None),
            ("another timeline", 7, 3, 0, None),
        ] {
            let found = written(identifier, timeline, from);
            assert_eq!(found, expected.map(Lsn), "{what}");
        }
        std::fs::remove_file(wal.join("000000010000000000000006")).unwrap();
        assert_eq!(written(7, 1, 0), Some(Lsn(0x60_0000)));
    }
}
