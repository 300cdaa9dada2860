//! The live server of this node: what the restore is measured against. Looked at, never touched.

use std::time::Duration;

use jiff::Timestamp;

use super::report::secs;
use crate::archive::catalog::Catalog;
use crate::config::Config;
use crate::model::{Lsn, SegmentSize, Timeline, Verdict, WalSegment};
use crate::postgres::{self, Archiver, Commit, PostgresError, Server, WalReader, WalStretch};

/// This node's server as it was when the test began.
#[derive(Debug)]
pub struct Live {
    pub server: Server,
    pub archiver: Archiver,
    /// What else reads or writes all of it now, by its name.
    pub heavy: Vec<String>,
}

/// Why this node's server says nothing.
#[derive(Debug, Clone)]
pub enum Silent {
    /// There is none of this cluster here: nothing to be known, and no reason to fail a test.
    Absent(String),
    /// There is one, of another cluster.
    Foreign(String),
    /// There is one, and the look failed.
    Failed(String),
}

impl Silent {
    pub fn reason(&self) -> &str {
        match self {
            Self::Absent(reason) | Self::Foreign(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// Looks at the server of `config`.
///
/// # Errors
/// Why it could not be looked at.
pub async fn look(config: &Config) -> Result<Live, Silent> {
    let limit = Duration::from_secs(10);
    let connection = postgres::connect(&(&config.postgres).into(), limit)
        .await
        .map_err(|error| {
            let reason = format!("this node's server cannot be asked: {error}");
            // Nothing listens, or it is not up: no code of PostgreSQL's came back.
            match &error {
                PostgresError::Connect { error, .. } if error.code().is_none() => {
                    Silent::Absent(reason)
                }
                _ => Silent::Failed(reason),
            }
        })?;
    let no = |error| Silent::Failed(format!("this node's server cannot be asked: {error}"));
    let server = postgres::server(&connection).await.map_err(no)?;
    let archiver = postgres::archiver(&connection).await.map_err(no)?;
    let heavy = postgres::heavy_work(&connection).await.map_err(no)?;
    Ok(Live {
        server,
        archiver,
        heavy,
    })
}

/// Whether the bucket holds what PostgreSQL archived last: a missing last segment cannot be seen in a bucket alone.
pub fn judge_archive_end(live: &Result<Live, Silent>, catalog: &Catalog) -> Verdict {
    let live = match live {
        Ok(live) => live,
        Err(silent) => return judge_mark(silent, catalog),
    };
    let Some(last) = live.archiver.last_archived.as_deref() else {
        return Verdict::Unknown(
            "the end of the archive is unverified: this server has archived nothing yet".into(),
        );
    };
    // Backup histories and partial segments begin with their segment's name; a timeline history has none.
    let Some(segment) = last
        .get(..24)
        .and_then(|name| WalSegment::parse(name, catalog.wal.size).ok())
    else {
        return Verdict::Unknown(format!(
            "the end of the archive is unverified: {last} was archived last"
        ));
    };
    let whole = last.len() == 24;
    let newest = catalog.wal.newest(segment.timeline);
    match newest {
        Some(_) if catalog.wal.get(segment).is_some() => Verdict::Ok,
        // A partial segment's or backup history's own segment may follow later.
        Some(newest) if !whole && newest.number + 1 >= segment.number => Verdict::Ok,
        _ => Verdict::Critical(format!(
            "PostgreSQL archived {last}, and the repository does not hold it: its newest segment is {}",
            newest.map_or_else(
                || "none".to_owned(),
                |segment| segment.name(catalog.wal.size)
            )
        )),
    }
}

/// Without a server here, the high-water mark in the bucket tells what was archived last.
fn judge_mark(silent: &Silent, catalog: &Catalog) -> Verdict {
    match catalog.lost_end() {
        Ok(None) => Verdict::Ok,
        Ok(Some(lost)) => Verdict::Critical(format!(
            "{} was archived last, by the high-water mark, and the repository does not hold it",
            lost.name(catalog.wal.size)
        )),
        Err(unmarked) => Verdict::Unknown(format!(
            "the end of the archive is unverified: {}, and {unmarked}",
            silent.reason()
        )),
    }
}

/// Seconds of committed work that a loss of the primary at `live`'s moment would have cost.
///
/// From the first commit past `archived`, the end of what the archive held then, to that moment; 0 where there is none. Read from the live server's own WAL
/// with `pg_waldump`, as the live RPO is: an idle primary loses nothing, however old its last commit.
///
/// # Errors
/// Why it is not known, as a sentence.
pub async fn measure_rpo(
    config: &Config,
    live: &Live,
    timeline: Timeline,
    archived: Lsn,
) -> Result<f64, String> {
    let server = &live.server;
    if server.in_recovery && !server.streaming {
        return Err(
            "this standby is not streaming: what the primary committed since is not known here"
                .into(),
        );
    }
    if server.timeline != timeline {
        return Err(format!(
            "the live server is on timeline {}, the archive on {timeline}",
            server.timeline
        ));
    }
    // A primary's WAL can be read as far as it is written, not as far as it is inserted.
    let end = match server.in_recovery {
        true => server
            .wal_end
            .ok_or("this standby has received no WAL yet")?,
        false => server
            .position
            .ok_or("the server does not tell its position")?,
    };
    // A segment begins with a page header, which is no record: nothing was written past the last switch.
    const PAGE_HEADER: u64 = 40;
    let begins_segment = archived.0.is_multiple_of(server.segment_size.bytes());
    if end <= archived || begins_segment && end.0 - archived.0 <= PAGE_HEADER {
        return Ok(0.0);
    }
    let reader = WalReader {
        bin_directory: config.postgres.bin_directory.clone(),
        data_directory: server.data_directory.clone(),
        segment_size: server.segment_size,
    };
    let stretch = WalStretch {
        timeline,
        from: archived,
        to: end,
    };
    let first = reader.first_commit(stretch).await?;
    Ok(first.map_or(0.0, |first| lost_secs(first, server.now)))
}

/// Never 0: the commit is lost, whatever the clocks of this node and of the primary make of its age.
fn lost_secs(first: Commit, now: Timestamp) -> f64 {
    const LEAST: f64 = 0.1;
    let age = Duration::try_from(now.duration_since(first.at));
    age.map_or(LEAST, |age| secs(age).max(LEAST))
}

/// Records longer than this are not expected at the end of a segment, where the last one may be cut.
const LONGEST_RECORD: u64 = 1 << 20;

/// In small segments less of that, or the end of the segment before would be taken for this one's.
fn longest_record(size: SegmentSize) -> u64 {
    LONGEST_RECORD.min(size.bytes() / 4)
}

/// Whether replay came to the end that the listing promised.
///
/// PostgreSQL archives a segment when it is full or switched: replay ends at its end, or before a last record that goes
/// on in the next. Ending well inside it means that its content is damaged.
pub fn judge_end(
    recovered: Lsn,
    reachable: Option<WalSegment>,
    newest: Option<WalSegment>,
    size: SegmentSize,
) -> Verdict {
    let name = |segment: WalSegment| segment.name(size);
    match (reachable, newest) {
        (_, None) | (None, _) => {
            Verdict::Critical("the archive holds no WAL for this backup".to_owned())
        }
        (Some(reachable), _) if recovered.0 + longest_record(size) < reachable.end(size).0 => {
            Verdict::Critical(format!(
                "recovery ended at {recovered}, before the end of the segment {} that the archive goes up to",
                name(reachable)
            ))
        }
        (Some(reachable), Some(newest)) if reachable != newest => Verdict::Critical(format!(
            "recovery ended at {recovered}: after {} a segment is missing, and the archive goes on to {}",
            name(reachable),
            name(newest)
        )),
        _ => Verdict::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_that_is_lost_is_a_loss_whatever_the_clocks_say() {
        let at = |millisecond| Timestamp::from_millisecond(millisecond).unwrap();
        for (committed, expected) in [(500, 1.5), (1999, 0.1), (2000, 0.1), (9000, 0.1)] {
            let commit = Commit {
                end: Lsn(1),
                at: at(committed),
            };
            let lost = lost_secs(commit, at(2000));
            assert!((lost - expected).abs() < 1e-9, "{committed}: {lost}");
        }
    }

    #[test]
    fn the_end_is_reached_only_inside_the_last_segment() {
        check_ends(SegmentSize::default());
        check_ends(SegmentSize::new(1 << 20).unwrap());
        let size = SegmentSize::new(1 << 20).unwrap();
        assert_eq!(longest_record(size), 256 << 10);
    }

    fn check_ends(size: SegmentSize) {
        let segment = |number| {
            Some(WalSegment {
                timeline: Timeline(1),
                number,
            })
        };
        let lsn = |number: u64, offset| Lsn(number * size.bytes() + offset);
        // A switched segment ends where the next begins; a cut record ends shortly before.
        for recovered in [lsn(6, 0), lsn(6, 0x28), Lsn(lsn(6, 0).0 - 8192)] {
            assert_eq!(
                judge_end(recovered, segment(5), segment(5), size),
                Verdict::Ok,
                "{recovered}"
            );
        }
        for (recovered, reachable, newest) in [
            (lsn(5, 1), segment(5), segment(5)),
            (lsn(4, 9), segment(5), segment(5)),
            (lsn(6, 0), segment(5), segment(8)),
            (lsn(6, 0), None, None),
        ] {
            assert_ne!(
                judge_end(recovered, reachable, newest, size),
                Verdict::Ok,
                "{recovered}"
            );
        }
    }
}
