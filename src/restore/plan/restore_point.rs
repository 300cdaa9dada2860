//! Whether the archive holds a restore point. Text after `--until` without `name:` may be a mistyped time.

use std::io::{self, ErrorKind, Read};

use futures_util::{StreamExt, stream};

use super::recovery_target::not_in_the_wal;
use super::survey::Survey;
use super::until::Until;
use super::wal_path::{object_suffix, stored_segments};
use crate::repository::catalog;
use crate::restore::RestoreError;

/// Segments that are read side by side.
const AT_ONCE: usize = 4;
/// `XLogPageHeaderData`, and what the first page of a segment has, with the size of a page at 36
/// (`access/xlog_internal.h`).
const PAGE_HEADER: usize = 24;
const LONG_PAGE_HEADER: usize = 40;

/// Looks for the restore point `until` in the WAL that follows the backup.
///
/// WAL that xdb cannot read (encrypted, another compression) may hold it. Then only the replay finds it.
///
/// # Errors
/// [`RestoreError::Unreachable`] where it is not there.
pub(crate) async fn check_restore_point(
    survey: &Survey,
    until: Option<&Until>,
) -> Result<(), RestoreError> {
    let Some(until @ Until::Name(name)) = until else {
        return Ok(());
    };
    let program = &survey.repository.program;
    let Some(suffix) = object_suffix(&program.archive.compression).filter(|_| !program.encrypts())
    else {
        return Ok(());
    };
    match holds(survey, name, suffix).await {
        Some(false) => Err(not_in_the_wal(until, "")),
        _ => Ok(()),
    }
}

/// `None` where a segment cannot be read.
async fn holds(survey: &Survey, name: &str, suffix: &str) -> Option<bool> {
    let wal = survey.catalog.wal.size;
    // The name ends with a zero; the rest of its field is undefined.
    let field = [name.as_bytes(), &[0]].concat();
    let read = stream::iter(stored_segments(survey)).map(|segment| {
        let key = format!("wal_005/{}{suffix}", segment.name(wal));
        let (key, field) = (survey.repository.key(&key), field.clone());
        async move {
            let search = move |content: &mut dyn Read| search_segment(&field, content);
            let read = catalog::read_unpacked(&survey.repository.bucket, &key, search).await;
            Some((segment.number, read.ok()?.ok()?))
        }
    });
    let mut read = read.buffered(AT_ONCE);
    let mut joints = SegmentEnds::default();
    while let Some(read) = read.next().await {
        let (number, part) = read?;
        if part.is_inside || joints.complete(number, &part, &field) {
            return Some(true);
        }
        joints.add(number, part);
    }
    Some(false)
}

/// The search for a field in one segment.
#[derive(Debug, PartialEq, Eq)]
struct SearchedSegment {
    is_inside: bool,
    /// The first and last bytes of the segment without page headers, one fewer than the field has.
    first: Vec<u8>,
    last: Vec<u8>,
}

/// The ends of the segments before, as a record may continue in the next one. Each timeline may have a segment of a number.
#[derive(Debug, Default)]
struct SegmentEnds {
    before: (u64, Vec<Vec<u8>>),
    current: (u64, Vec<Vec<u8>>),
}

impl SegmentEnds {
    /// Whether `part`, of the segment `number`, completes the field that one before began.
    fn complete(&self, number: u64, part: &SearchedSegment, field: &[u8]) -> bool {
        let ends = [&self.before, &self.current].into_iter();
        let mut ends = ends
            .filter(|(before, _)| before + 1 == number)
            .flat_map(|(_, ends)| ends);
        ends.any(|end| has(&[end, part.first.as_slice()].concat(), field))
    }

    fn add(&mut self, number: u64, part: SearchedSegment) {
        if self.current.0 != number {
            let current = std::mem::replace(&mut self.current, (number, Vec::new()));
            self.before = current;
        }
        self.current.1.push(part.last);
    }
}

/// Looks for `field` in the records of a segment, over the headers of its pages.
///
/// # Errors
/// When it cannot be read, or is no segment.
fn search_segment(field: &[u8], segment: &mut dyn Read) -> io::Result<SearchedSegment> {
    let mut header = [0; LONG_PAGE_HEADER];
    segment.read_exact(&mut header)?;
    let size = u32::from_ne_bytes([header[36], header[37], header[38], header[39]]) as usize;
    // PostgreSQL is built for pages of 1 to 64 KiB.
    if !(1024..=1 << 16).contains(&size) || !size.is_power_of_two() {
        return Err(ErrorKind::InvalidData.into());
    }
    let overlap = field.len() - 1;
    let mut part = SearchedSegment {
        is_inside: false,
        first: Vec::new(),
        last: Vec::new(),
    };
    let mut content = vec![0; size - LONG_PAGE_HEADER];
    loop {
        segment.read_exact(&mut content)?;
        if part.first.is_empty() {
            part.first = content[..overlap.min(content.len())].to_vec();
        }
        let mut joined = std::mem::take(&mut part.last);
        joined.extend_from_slice(&content);
        part.is_inside |= has(&joined, field);
        part.last = joined.split_off(joined.len() - overlap);
        let mut header = [0; PAGE_HEADER];
        match segment.read_exact(&mut header) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(part),
            read => read?,
        }
        content.resize(size - PAGE_HEADER, 0);
    }
}

fn has(bytes: &[u8], field: &[u8]) -> bool {
    bytes.windows(field.len()).any(|part| part == field)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 8192;

    /// A segment of three pages whose records hold `text` at `at`, counted without the headers of pages.
    fn segment(at: usize, text: &[u8]) -> Vec<u8> {
        let mut records = vec![7_u8; 3 * PAGE - LONG_PAGE_HEADER - 2 * PAGE_HEADER];
        records[at..at + text.len()].copy_from_slice(text);
        let mut segment = vec![0_u8; LONG_PAGE_HEADER];
        segment[36..40].copy_from_slice(&8192_u32.to_ne_bytes());
        let (first, rest) = records.split_at(PAGE - LONG_PAGE_HEADER);
        segment.extend_from_slice(first);
        for page in rest.chunks(PAGE - PAGE_HEADER) {
            segment.extend_from_slice(&[0; PAGE_HEADER]);
            segment.extend_from_slice(page);
        }
        segment
    }

    fn search(name: &str, segment: &[u8]) -> SearchedSegment {
        let field = [name.as_bytes(), &[0]].concat();
        search_segment(&field, &mut &*segment).unwrap()
    }

    #[test]
    fn a_name_is_found_wherever_the_header_of_a_page_cuts_it() {
        let first = PAGE - LONG_PAGE_HEADER;
        for page in [first, first + PAGE - PAGE_HEADER] {
            for before in 0..=8 {
                let segment = segment(page - before, b"before\0");
                assert!(search("before", &segment).is_inside, "{page} {before}");
                assert!(!search("befor", &segment).is_inside);
            }
        }
        assert!(
            !search("before", &segment(100, b"before")).is_inside,
            "no field of a record"
        );
        let short = segment(0, b"")[..PAGE + 9].to_vec();
        let field = b"before\0";
        assert!(search_segment(field, &mut short.as_slice()).is_ok());
        for cut in [&short[..20], &short[..PAGE - 1]] {
            assert!(search_segment(field, &mut &*cut).is_err(), "{}", cut.len());
        }
        assert!(
            search_segment(field, &mut [0_u8; PAGE].as_slice()).is_err(),
            "no segment"
        );
    }

    #[test]
    fn a_name_is_found_that_goes_on_in_the_next_segment_of_any_timeline() {
        let field = b"before\0";
        let end = 3 * PAGE - LONG_PAGE_HEADER - 2 * PAGE_HEADER;
        for cut in 1..field.len() {
            let ends = search("before", &segment(end - cut, &field[..cut]));
            let other = search("before", &segment(0, b""));
            let begins = search("before", &segment(0, &field[cut..]));
            assert!(!ends.is_inside && !begins.is_inside, "{cut}");
            let mut joints = SegmentEnds::default();
            joints.add(4, other);
            joints.add(5, ends);
            joints.add(5, search("before", &segment(0, b"")));
            assert!(joints.complete(6, &begins, field), "{cut}");
            assert!(
                !joints.complete(7, &begins, field),
                "{cut}: one is missing between"
            );
            joints.add(6, search("before", &segment(0, b"")));
            assert!(
                joints.complete(6, &begins, field),
                "{cut}: another timeline's was read first"
            );
        }
    }
}
