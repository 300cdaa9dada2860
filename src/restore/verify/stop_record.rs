//! Judges a WAL segment at the LSN where a replay stopped: a record that continues past the end of the archive, or damage.
//!
//! PostgreSQL takes the first record that it cannot read for the end of the WAL and does not report the difference.

use crate::model::Lsn;

/// The content of the archive where the replay stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StopRecord {
    /// A record that continues in the next segment, which is not archived yet.
    Continues,
    /// A record that should have been replayed, or no record.
    Damaged,
    /// The segment itself is damaged, for this reason.
    BadSegment(String),
    /// The live server's own segment has other bytes from there on.
    Differs(Lsn),
    Unread(String),
}

impl StopRecord {
    /// The damage in the archive, as a clause; `None` where there is no proof of damage.
    pub(crate) fn damage(&self) -> Option<String> {
        match self {
            Self::Continues | Self::Unread(_) => None,
            Self::Damaged => Some("the archived copy is damaged there".to_owned()),
            Self::BadSegment(reason) => Some(format!("the archived copy is damaged: {reason}")),
            Self::Differs(at) => Some(format!(
                "the archived copy is damaged, it differs from this server's own at {at}"
            )),
        }
    }
}

/// Where a replay stopped in an archive.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StopPosition {
    /// Where the segment begins.
    pub start: Lsn,
    /// End of the last record that was replayed.
    pub at: Lsn,
    /// Where the last record begins that was replayed, where that is known.
    pub last: Option<Lsn>,
    /// The end of the archive.
    pub end: Lsn,
}

/// `XLogRecord`: its whole length at 0, the record before it at 8, its resource manager at 17 (`access/xlogrecord.h`).
const RECORD_HEADER: u64 = 24;
/// `XLogRecordMaxSize`.
const LONGEST_RECORD: u64 = 1020 << 20;
/// `XLogPageHeaderData`: its magic at 0, flags at 2, address at 8, the bytes of a continued record at 16.
const PAGE_HEADER: u64 = 24;
/// `XLogLongPageHeaderData`, which begins a segment and holds the size of a page at 36.
const LONG_PAGE_HEADER: u64 = 40;
/// `XLP_FIRST_IS_CONTRECORD`.
const CONTINUES: u16 = 0x0001;

/// Judges the archived `segment`; `live` is the live server's own, where that is here.
pub(crate) fn judge_stop(segment: &[u8], live: Option<&[u8]>, stopped: StopPosition) -> StopRecord {
    let behind = usize::try_from(stopped.at.0 - stopped.start.0).unwrap_or(usize::MAX);
    if let Some(live) = live.filter(|live| live.len() == segment.len()) {
        let mut pairs = segment.iter().zip(live).enumerate().skip(behind);
        if let Some((offset, _)) = pairs.find(|(_, (one, other))| one != other) {
            return StopRecord::Differs(Lsn(stopped.start.0 + offset as u64));
        }
    }
    judge_record(segment, stopped)
}

/// As [`judge_stop`], without a live segment to compare.
pub(crate) fn judge_record(segment: &[u8], stopped: StopPosition) -> StopRecord {
    match record_end(segment, stopped) {
        Some(behind) if stopped.start.0 + behind > stopped.end.0 => StopRecord::Continues,
        _ => StopRecord::Damaged,
    }
}

/// The offset where the record ends that the replay stopped before; `None` where no record stands there, or not all of it
/// that this segment must hold.
fn record_end(segment: &[u8], stopped: StopPosition) -> Option<u64> {
    let page = u64::from(u32_at(segment, 36)?);
    if !page.is_power_of_two() || page < 1024 {
        return None;
    }
    let offset = stopped.at.0 - stopped.start.0;
    let begin = match (offset, offset % page) {
        (0, _) => LONG_PAGE_HEADER,
        (_, 0) => offset + PAGE_HEADER,
        _ => offset,
    };
    let all = segment.len() as u64;
    if begin >= all {
        return Some(begin + 1);
    }
    let length = u64::from(u32_at(segment, begin)?);
    if !(RECORD_HEADER..=LONGEST_RECORD).contains(&length) {
        return None;
    }
    // The rest of a header may stand on the next page.
    if begin % page + RECORD_HEADER <= page {
        let before = u64_at(segment, begin + 8)?;
        let here = u64_at(segment, 8)?.checked_add(begin)?;
        let manager = *segment.get(usize::try_from(begin + 17).ok()?)?;
        let follows = stopped
            .last
            .map_or(before < here && here - before <= LONGEST_RECORD, |last| {
                last.0 == before
            });
        // The numbers between are PostgreSQL's own, and not in use.
        if !follows || (64..128).contains(&manager) {
            return None;
        }
    }
    // Each page that the record continues on says how much of it is left: a page of zeros does not.
    let mut left = length.saturating_sub(page - begin % page);
    let mut at = begin - begin % page + page;
    while left > 0 && at < all {
        let continues = u16_at(segment, at)? == u16_at(segment, 0)?
            && u16_at(segment, at + 2)? & CONTINUES != 0
            && u64_at(segment, at + 8)? == u64_at(segment, 8)?.checked_add(at)?
            && u64::from(u32_at(segment, at + 16)?) == left;
        if !continues {
            return None;
        }
        left = left.saturating_sub(page - PAGE_HEADER);
        at += page;
    }
    let pages = (begin % page + length - 1) / page;
    Some(begin + length + pages * PAGE_HEADER)
}

fn bytes_at<const N: usize>(bytes: &[u8], at: u64) -> Option<[u8; N]> {
    let at = usize::try_from(at).ok()?;
    bytes.get(at..at + N)?.try_into().ok()
}

fn u16_at(bytes: &[u8], at: u64) -> Option<u16> {
    bytes_at(bytes, at).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: u64) -> Option<u32> {
    bytes_at(bytes, at).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: u64) -> Option<u64> {
    bytes_at(bytes, at).map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 1 << 20;
    const PAGE: usize = 8192;
    const START: Lsn = Lsn(5 * SIZE as u64);

    /// Segment 5 with a record of `length` bytes at `offset`, which continues as far as the segment goes.
    fn segment(offset: usize, length: u32) -> Vec<u8> {
        let mut bytes = vec![0_u8; SIZE];
        let mut left = i64::from(length) - (PAGE - offset % PAGE) as i64;
        for (index, page) in bytes.chunks_mut(PAGE).enumerate() {
            page[..2].copy_from_slice(&0xD116_u16.to_ne_bytes());
            page[8..16].copy_from_slice(&(START.0 + (index * PAGE) as u64).to_ne_bytes());
            if index * PAGE > offset && left > 0 {
                page[2..4].copy_from_slice(&CONTINUES.to_ne_bytes());
                page[16..20].copy_from_slice(&u32::try_from(left).unwrap().to_ne_bytes());
                left -= (PAGE - 24) as i64;
            }
        }
        bytes[24..32].copy_from_slice(&7_u64.to_ne_bytes());
        bytes[36..40].copy_from_slice(&8192_u32.to_ne_bytes());
        bytes[offset..offset + 4].copy_from_slice(&length.to_ne_bytes());
        let before = START.0 + offset as u64 - 64;
        bytes[offset + 8..offset + 16].copy_from_slice(&before.to_ne_bytes());
        bytes
    }

    fn at(offset: usize) -> Lsn {
        Lsn(START.0 + offset as u64)
    }

    fn to(offset: usize) -> StopPosition {
        StopPosition {
            start: START,
            at: at(offset),
            last: None,
            end: at(SIZE),
        }
    }

    #[test]
    fn only_a_record_that_goes_on_in_the_next_segment_may_follow_the_end() {
        let near = SIZE - 4096;
        let far = SIZE - 3 * PAGE - 4096;
        let mut no_address = segment(near, 9000);
        no_address[8..16].fill(0xFF);
        let mut far_back = segment(near, 9000);
        far_back[near + 8..near + 16].copy_from_slice(&u64::MAX.to_ne_bytes());
        let mut zero_page = segment(far, 40_000);
        zero_page[SIZE - 2 * PAGE..SIZE - PAGE].fill(0);
        let mut other_rest = segment(far, 40_000);
        other_rest[SIZE - PAGE + 16] ^= 1;
        for (what, bytes, offset, expected) in [
            (
                "the record continues",
                segment(near, 9000),
                near,
                StopRecord::Continues,
            ),
            (
                "it crosses pages",
                segment(far, 40_000),
                far,
                StopRecord::Continues,
            ),
            ("a page of zeros", zero_page, far, StopRecord::Damaged),
            ("a page of another", other_rest, far, StopRecord::Damaged),
            (
                "it ends with the segment",
                segment(near, 4096),
                near,
                StopRecord::Damaged,
            ),
            ("it fits", segment(near, 64), near, StopRecord::Damaged),
            ("zeros", segment(near, 0), near, StopRecord::Damaged),
            (
                "no length",
                segment(near, u32::MAX),
                near,
                StopRecord::Damaged,
            ),
            ("no record before it", far_back, near, StopRecord::Damaged),
            (
                "no address of a page",
                no_address,
                near,
                StopRecord::Damaged,
            ),
            (
                "behind a page header",
                segment(SIZE - PAGE + 24, 9000),
                SIZE - PAGE,
                StopRecord::Continues,
            ),
            ("nothing of it", Vec::new(), near, StopRecord::Damaged),
            (
                "cut short",
                segment(far, 40_000)[..SIZE - PAGE + 8].to_vec(),
                far,
                StopRecord::Damaged,
            ),
        ] {
            assert_eq!(judge_stop(&bytes, None, to(offset)), expected, "{what}");
        }
        // Longer than the rest of this segment, and not than the archive.
        let further = StopPosition {
            end: at(2 * SIZE),
            ..to(near)
        };
        assert_eq!(
            judge_stop(&segment(near, 9000), None, further),
            StopRecord::Damaged
        );
    }

    #[test]
    fn the_record_follows_the_last_one_that_was_replayed() {
        let near = SIZE - 4096;
        let after = |last: usize| StopPosition {
            last: Some(at(last)),
            ..to(near)
        };
        let bytes = segment(near, 9000);
        assert_eq!(
            judge_stop(&bytes, None, after(near - 64)),
            StopRecord::Continues
        );
        assert_eq!(
            judge_stop(&bytes, None, after(near - 72)),
            StopRecord::Damaged
        );
    }

    #[test]
    fn the_live_servers_own_segment_tells_what_differs() {
        let near = SIZE - 4096;
        let archived = segment(near, 9000);
        let mut live = archived.clone();
        assert_eq!(
            judge_stop(&archived, Some(&live), to(near)),
            StopRecord::Continues
        );
        live[near + 100] = 1;
        let differs = StopRecord::Differs(at(near + 100));
        assert_eq!(judge_stop(&archived, Some(&live), to(near)), differs);
        // Before the stop all was replayed.
        assert_eq!(
            judge_stop(&archived, Some(&live), to(near + 104)),
            StopRecord::Damaged
        );
    }
}
