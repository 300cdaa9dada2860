//! Whether a file is the WAL segment that its name says, by its size and its page headers (`access/xlog_internal.h`).

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};
use std::path::Path;

use crate::model::{ArchiveFile, Lsn, SegmentSize, Timeline, WalSegment};

/// `XLogLongPageHeaderData`: magic at 0, flags at 2, timeline at 4, address at 8, system identifier at 24, segment size at
/// 32, page size at 36. Numbers stand in the byte order of the server.
pub(crate) const LONG_HEADER: usize = 40;
/// `XLogPageHeaderData`, with its padding.
const SHORT_HEADER: usize = 24;
const IS_LONG: u16 = 0x0002;
/// `ControlFileData` begins with the system identifier (`catalog/pg_control.h`).
const CONTROL_FILE: &str = "global/pg_control";

/// What the first page of a segment says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PageHeader {
    magic: u16,
    timeline: Timeline,
    address: Lsn,
    system_identifier: u64,
    segment_bytes: u64,
    page_bytes: usize,
}

impl PageHeader {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (magic, flags) = (u16_at(bytes, 0)?, u16_at(bytes, 2)?);
        let header = Self {
            magic,
            timeline: Timeline(u32_at(bytes, 4)?),
            address: Lsn(u64_at(bytes, 8)?),
            system_identifier: u64_at(bytes, 24)?,
            segment_bytes: u32_at(bytes, 32)?.into(),
            page_bytes: usize::try_from(u32_at(bytes, 36)?).ok()?,
        };
        (magic != 0 && flags & IS_LONG != 0).then_some(header)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The size of the segment that begins with `start`, at least [`LONG_HEADER`] bytes, by its own header.
pub(crate) fn segment_size(start: &[u8]) -> Option<SegmentSize> {
    let header = PageHeader::parse(start)?;
    SegmentSize::new(header.segment_bytes).ok()
}

/// The system identifier of the cluster in `data_directory`, by its control file; `None` where there is none.
pub(crate) fn cluster_in(data_directory: &Path) -> Option<u64> {
    let mut identifier = [0; 8];
    let mut file = File::open(data_directory.join(CONTROL_FILE)).ok()?;
    file.read_exact(&mut identifier).ok()?;
    Some(u64::from_ne_bytes(identifier))
}

/// Judges what the file `name` is to hold by its first bytes, at least [`LONG_HEADER`], and its length. Only segments are
/// judged. `cluster` is the system identifier that it must have, where that is known.
///
/// # Errors
/// Why it is not that segment.
pub(crate) fn judge_start(
    name: &str,
    start: &[u8],
    bytes: u64,
    cluster: Option<u64>,
) -> Result<(), String> {
    if ArchiveFile::of(name) != Some(ArchiveFile::Segment) {
        return Ok(());
    }
    judge(name, start, bytes, cluster).map(|_| ())
}

fn judge(name: &str, start: &[u8], bytes: u64, cluster: Option<u64>) -> Result<PageHeader, String> {
    let Ok(size) = SegmentSize::new(bytes) else {
        return Err(format!("it unpacks to {bytes} bytes, which is no segment"));
    };
    let header =
        PageHeader::parse(start).ok_or("it does not begin with the header of a segment")?;
    let written = header.segment_bytes;
    if written != bytes {
        return Err(format!(
            "it unpacks to {bytes} bytes, and its header says {written}"
        ));
    }
    let segment = WalSegment::parse(name, size).map_err(|error| error.to_string())?;
    let (start, address) = (segment.start(size), header.address);
    if address != start {
        return Err(format!(
            "it holds the WAL at {address}, and its name stands for {start}"
        ));
    }
    // Up to the switch, the first segment of a timeline holds pages of the timeline before.
    let timeline = header.timeline;
    if timeline > segment.timeline || timeline.0 == 0 {
        return Err(format!(
            "it holds WAL of timeline {timeline}, and its name stands for {}",
            segment.timeline
        ));
    }
    let theirs = header.system_identifier;
    match cluster.filter(|own| *own != theirs) {
        Some(own) => Err(format!(
            "it is of another cluster: its system identifier is {theirs}, this one's {own}"
        )),
        None => Ok(header),
    }
}

/// The same of the file at `path`.
///
/// # Errors
/// Why it is not that segment, or cannot be read.
pub(crate) fn judge_file(name: &str, path: &Path, cluster: Option<u64>) -> Result<(), String> {
    read_header(name, path, cluster).map(|_| ())
}

/// The size of the segment at `path`, where it is the one that `name` says.
pub(crate) fn size_of(name: &str, path: &Path, cluster: u64) -> Option<SegmentSize> {
    let (header, _) = read_header(name, path, Some(cluster)).ok()??;
    SegmentSize::new(header.segment_bytes).ok()
}

/// The segment that `name` stands for and where it ends, by the size of the file at `path`.
pub(crate) fn segment_of(name: &str, path: &Path) -> Option<(WalSegment, Lsn)> {
    let bytes = std::fs::metadata(path).ok()?.len();
    let size = SegmentSize::new(bytes).ok()?;
    let segment = WalSegment::parse(name, size).ok()?;
    Some((segment, segment.end(size)))
}

fn read_header(
    name: &str,
    path: &Path,
    cluster: Option<u64>,
) -> Result<Option<(PageHeader, File)>, String> {
    if ArchiveFile::of(name) != Some(ArchiveFile::Segment) {
        return Ok(None);
    }
    let read = || -> io::Result<(Vec<u8>, u64, File)> {
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let mut start = Vec::with_capacity(LONG_HEADER);
        (&mut file)
            .take(LONG_HEADER as u64)
            .read_to_end(&mut start)?;
        Ok((start, bytes, file))
    };
    let (start, bytes, file) = read().map_err(|error| error.to_string())?;
    let header = judge(name, &start, bytes, cluster)?;
    Ok(Some((header, file)))
}

/// Judges every page of the segment at `path`: a segment that was only partly received, or recycled, has pages of other
/// addresses. Behind a switch to the next segment all is zeros.
///
/// # Errors
/// Why it is not that segment, or cannot be read.
pub(crate) fn judge_pages(name: &str, path: &Path, cluster: u64) -> Result<(), String> {
    let Some((header, _)) = read_header(name, path, Some(cluster))? else {
        return Err("it is no WAL segment".to_owned());
    };
    if !(1024..=1 << 16).contains(&header.page_bytes) || !header.page_bytes.is_power_of_two() {
        return Err(format!("it has pages of {} bytes", header.page_bytes));
    }
    let named = name
        .get(..8)
        .and_then(|it| u32::from_str_radix(it, 16).ok());
    let mut pages = Pages {
        header,
        named: Timeline(named.unwrap_or_default()),
        timeline: header.timeline,
        ended: false,
    };
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut reader = BufReader::with_capacity(1 << 18, file);
    let mut page = vec![0; header.page_bytes];
    let mut at = header.address.0;
    loop {
        match reader.read_exact(&mut page) {
            Ok(()) => pages.judge(&page, Lsn(at))?,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error.to_string()),
        }
        at += page.len() as u64;
    }
}

struct Pages {
    header: PageHeader,
    named: Timeline,
    /// Of the page before.
    timeline: Timeline,
    /// Zeros began.
    ended: bool,
}

impl Pages {
    fn judge(&mut self, page: &[u8], at: Lsn) -> Result<(), String> {
        if self.ended || page[..SHORT_HEADER].iter().all(|byte| *byte == 0) {
            self.ended = true;
            return match page.iter().all(|byte| *byte == 0) {
                true => Ok(()),
                false => Err(format!("the page at {at} has no header")),
            };
        }
        let magic = u16_at(page, 0).unwrap_or_default();
        let timeline = Timeline(u32_at(page, 4).unwrap_or_default());
        let address = Lsn(u64_at(page, 8).unwrap_or_default());
        if magic != self.header.magic || address != at {
            return Err(format!("the page at {at} is of {address}"));
        }
        if timeline < self.timeline || timeline > self.named {
            return Err(format!("the page at {at} is of timeline {timeline}"));
        }
        self.timeline = timeline;
        Ok(())
    }
}

#[cfg(test)]
#[path = "segment_header_tests.rs"]
mod tests;
