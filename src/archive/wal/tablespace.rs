//! Whether a segment makes a tablespace, read from its records' headers (`access/xlogrecord.h`, `access/xlog_internal.h`).
//!
//! PostgreSQL replays that by linking to the directory that the record names. Beside a live server it is the live one's, and
//! what is replayed after it would be written over the live files.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

/// `XLogPageHeaderData`, and what the first page of a segment has in addition.
const PAGE_HEADER: usize = 24;
const LONG_PAGE_HEADER: usize = 40;
/// `xlp_info`: the page begins with the rest of a record.
const CONTINUED: u16 = 0x0001;
/// `XLogRecord`: the length stands at 0, `xl_info` at 16 and `xl_rmid` at 17; then come its blocks and data.
const RECORD_HEADER: usize = 24;
/// `RM_TBLSPC_ID` (`access/rmgrlist.h`).
const TABLESPACE: u8 = 5;
/// `XLOG_TBLSPC_CREATE`, in the half of `xl_info` that is the resource manager's (`commands/tablespace.h`).
const CREATE: u8 = 0x00;
/// `xl_tblspc_create_rec` is the record's only data: an OID, and the path with a zero byte. Before it stand
/// `XLR_BLOCK_ID_DATA_SHORT` and a byte of length, or `XLR_BLOCK_ID_DATA_LONG` and four.
const SHORT: u8 = 255;
const LONG: u8 = 254;
const OID: usize = 4;
const LONGEST_PATH: usize = 1024;

/// The directory of the first tablespace that the segment at `path` makes, as much of it as stands in this segment.
///
/// # Errors
/// When the file cannot be read.
pub fn tablespace_made(path: &Path) -> io::Result<Option<String>> {
    find(BufReader::with_capacity(1 << 16, File::open(path)?))
}

fn find(mut segment: impl Read) -> io::Result<Option<String>> {
    let mut first = [0; LONG_PAGE_HEADER];
    if !fill(&mut segment, &mut first)? {
        return Ok(None);
    }
    let size = u32::from_ne_bytes([first[36], first[37], first[38], first[39]]) as usize;
    // PostgreSQL is built for pages of 1 to 64 KiB.
    if !(1024..=1 << 16).contains(&size) || !size.is_power_of_two() {
        return Ok(None);
    }
    let mut page = vec![0; size];
    page[..LONG_PAGE_HEADER].copy_from_slice(&first);
    if !fill(&mut segment, &mut page[LONG_PAGE_HEADER..])? {
        return Ok(None);
    }
    if let Some(path) = ended_here(&page) {
        return Ok(Some(path));
    }
    let mut records = Records::default();
    let mut header = LONG_PAGE_HEADER;
    loop {
        if let Some(end) = records.read(&page, header) {
            return Ok(end);
        }
        if !fill(&mut segment, &mut page)? {
            return Ok(records.path());
        }
        header = PAGE_HEADER;
    }
}

/// The path of a record whose header began in the segment before: eight or sixteen bytes of it are on this first page, with
/// what `xl_info` and `xl_rmid` say.
fn ended_here(page: &[u8]) -> Option<String> {
    let (continued, rest) = continuation(page);
    let page = &page[LONG_PAGE_HEADER..];
    let begun = |bytes: &usize| {
        let data = page.get(*bytes..)?;
        let (header, length) = match data {
            [SHORT, length, ..] => (2, usize::from(*length)),
            [LONG, a, b, c, d, ..] => (5, u32::from_ne_bytes([*a, *b, *c, *d]) as usize),
            _ => return None,
        };
        let (info, manager) = (page[*bytes - 8], page[*bytes - 7]);
        let makes = manager == TABLESPACE && info & 0xF0 == CREATE;
        (makes && rest == bytes + header + length).then(|| path(data))
    };
    [8, 16].iter().find_map(begun).filter(|_| continued)
}

/// Whether `page` begins with the rest of a record, and how many bytes of it are left.
fn continuation(page: &[u8]) -> (bool, usize) {
    let info = u16::from_ne_bytes([page[2], page[3]]);
    let rest = u32::from_ne_bytes([page[16], page[17], page[18], page[19]]);
    (info & CONTINUED != 0, rest as usize)
}

/// The path in a record's data, as far as it is there.
fn path(data: &[u8]) -> String {
    let header = if data.first() == Some(&LONG) { 5 } else { 2 };
    let path = data.get(header + OID..).unwrap_or_default();
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(path).into_owned()
}

/// `false` at the end, also where less is left.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(buffer) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

/// Where the reading stands, across the pages of one segment.
struct Records {
    /// Bytes of the current record, and its alignment, that are of no interest.
    skip: usize,
    /// The record's begin, up to `wanted` bytes.
    begin: Vec<u8>,
    /// Its header; more of one that makes a tablespace.
    wanted: usize,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            skip: 0,
            begin: Vec::new(),
            wanted: RECORD_HEADER,
        }
    }
}

impl Records {
    /// `Some` where nothing more needs to be read: the path that was found, or `None` behind the last record.
    fn read(&mut self, page: &[u8], header: usize) -> Option<Option<String>> {
        let (continued, rest) = continuation(page);
        if !continued {
            // Also where a record was begun and given up.
            *self = Self::default();
        } else if self.begin.is_empty() {
            self.skip = aligned(rest);
        }
        let mut at = header;
        while at < page.len() {
            let skipped = self.skip.min(page.len() - at);
            (self.skip, at) = (self.skip - skipped, at + skipped);
            let taken = (self.wanted - self.begin.len()).min(page.len() - at);
            self.begin.extend_from_slice(&page[at..at + taken]);
            at += taken;
            if self.begin.len() < self.wanted {
                continue;
            }
            if self.makes() {
                return Some(self.path());
            }
            let begin = &self.begin;
            let length = u32::from_ne_bytes([begin[0], begin[1], begin[2], begin[3]]) as usize;
            if length < RECORD_HEADER {
                return Some(None);
            }
            if begin[17] == TABLESPACE && begin[16] & 0xF0 == CREATE {
                self.wanted =
                    length.clamp(RECORD_HEADER + 1, RECORD_HEADER + 5 + OID + LONGEST_PATH);
                continue;
            }
            self.skip = aligned(length) - RECORD_HEADER;
            self.begin.clear();
        }
        None
    }

    fn makes(&self) -> bool {
        self.wanted > RECORD_HEADER
    }

    fn path(&self) -> Option<String> {
        let data = self.begin.get(RECORD_HEADER..).unwrap_or_default();
        self.makes().then(|| path(data))
    }
}

/// Records begin at multiples of 8.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 8192;

    /// A segment's pages with `records`, each a resource manager, `xl_info` and data.
    fn segment(records: &[(u8, u8, Vec<u8>)]) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut ends = Vec::new();
        for (rmid, info, data) in records {
            let length = u32::try_from(RECORD_HEADER + data.len()).unwrap();
            stream.extend_from_slice(&length.to_ne_bytes());
            stream.extend_from_slice(&[0; 12]);
            stream.extend_from_slice(&[*info, *rmid, 0, 0, 0, 0, 0, 0]);
            stream.extend_from_slice(data);
            ends.push(stream.len());
            stream.resize(aligned(stream.len()), 0);
        }
        let (mut pages, mut at) = (Vec::new(), 0);
        while at < stream.len() || pages.is_empty() {
            let header = if pages.is_empty() {
                LONG_PAGE_HEADER
            } else {
                PAGE_HEADER
            };
            let mut page = vec![0; header];
            // What of the record that began before is still to come.
            let rest = ends.iter().find(|end| **end > at).map_or(0, |end| end - at);
            let begins = at == 0 || ends.iter().any(|end| aligned(*end) == at);
            if !begins {
                page[2] = 1;
                page[16..20].copy_from_slice(&u32::try_from(rest).unwrap().to_ne_bytes());
            }
            if header == LONG_PAGE_HEADER {
                page[36..40].copy_from_slice(&u32::try_from(PAGE).unwrap().to_ne_bytes());
            }
            let taken = (PAGE - header).min(stream.len() - at);
            page.extend_from_slice(&stream[at..at + taken]);
            page.resize(PAGE, 0);
            at += taken;
            pages.extend(page);
        }
        pages.resize(pages.len() + 2 * PAGE, 0);
        pages
    }

    /// These pages as a segment's first: sixteen bytes more of header.
    fn as_first(pages: &[u8]) -> Vec<u8> {
        let mut pages = pages.to_vec();
        pages.splice(
            PAGE_HEADER..PAGE_HEADER,
            [0; LONG_PAGE_HEADER - PAGE_HEADER],
        );
        pages[36..40].copy_from_slice(&u32::try_from(PAGE).unwrap().to_ne_bytes());
        pages.resize(pages.len().next_multiple_of(PAGE), 0);
        pages
    }

    fn made(path: &str) -> (u8, u8, Vec<u8>) {
        let data = [&16_390_u32.to_ne_bytes()[..], path.as_bytes(), &[0]].concat();
        let header = match u8::try_from(data.len()) {
            Ok(length) => vec![SHORT, length],
            Err(_) => [
                &[LONG][..],
                &u32::try_from(data.len()).unwrap().to_ne_bytes(),
            ]
            .concat(),
        };
        (TABLESPACE, CREATE, [header, data].concat())
    }

    #[test]
    fn a_tablespace_is_found_wherever_its_record_lies() {
        // Up to the page's end and beyond it, eight bytes each: the header and the path lie across it in turn.
        for before in (7900..8300).step_by(8) {
            let records = [
                (10, 0x30, vec![5; 20_000]),
                (1, 0, vec![0; before]),
                made("/srv/aside"),
                (10, 0, vec![0; 9000]),
            ];
            let found = find(segment(&records).as_slice()).unwrap();
            assert_eq!(found.as_deref(), Some("/srv/aside"), "{before}");
        }
    }

    #[test]
    fn one_whose_header_lies_across_two_segments_is_found_in_the_second() {
        let long = format!("/srv/{}", "deep/".repeat(100));
        for path in ["/srv/aside", long.as_str()] {
            for left in [8, 16] {
                let before = PAGE - LONG_PAGE_HEADER - RECORD_HEADER - left;
                let whole = segment(&[(10, 0, vec![7; before]), made(path)]);
                assert_eq!(find(&whole[..PAGE]).unwrap(), None);
                let found = find(as_first(&whole[PAGE..]).as_slice()).unwrap();
                assert_eq!(found.as_deref(), Some(path), "{left}");
            }
        }
    }

    #[test]
    fn what_only_looks_like_one_is_none() {
        let like = segment(&[made("/srv/aside")]);
        let dropped = (TABLESPACE, 0x10, vec![255, 4, 0, 0, 0, 0]);
        let records = [(10, 0, like[LONG_PAGE_HEADER..400].to_vec()), dropped];
        assert_eq!(find(segment(&records).as_slice()).unwrap(), None);
        // A history file, nothing, zeros.
        for other in [&b"1\t0/3000000\tno reason"[..], b"", &[0; 20_000]] {
            assert_eq!(find(other).unwrap(), None);
        }
    }

    #[test]
    fn one_that_began_in_the_segment_before_is_skipped_and_one_that_ends_in_the_next_is_found() {
        let whole = segment(&[(10, 0, vec![7; 9000]), made("/srv/aside")]);
        let found = find(as_first(&whole[PAGE..]).as_slice()).unwrap();
        assert_eq!(found.as_deref(), Some("/srv/aside"));
        // The first page holds this record's header and the begin of its path.
        let cut = segment(&[(10, 0, vec![7; 8096]), made("/srv/aside")]);
        let found = find(&cut[..PAGE]).unwrap();
        assert_eq!(found.as_deref(), Some("/s"));
    }
}
