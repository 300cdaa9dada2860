//! Commits in a server's own `pg_wal`, read by `pg_waldump`: a server keeps no other record of when it committed what.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use crate::model::{Lsn, SegmentSize, Timeline, TimelineHistory, WalSegment};
use crate::process;

/// A stretch of WAL on one timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WalStretch {
    pub timeline: Timeline,
    pub from: Lsn,
    pub to: Lsn,
}

/// One commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Commit {
    /// Where its record ends.
    pub end: Lsn,
    pub at: Timestamp,
}

/// Where a server's WAL is, and the program that reads it.
#[derive(Debug, Clone)]
pub(crate) struct WalReader {
    pub bin_directory: PathBuf,
    pub data_directory: PathBuf,
    pub segment_size: SegmentSize,
}

/// For one run of the program.
const LIMIT: Duration = Duration::from_secs(20);
/// A record that crosses a position begins within this distance before it.
const BEFORE: u64 = 64 * 1024;
const PAGE: u64 = 8192;
const PAGE_HEADER: u64 = 24;
/// Records of transactions that one run prints at most.
const MOST: usize = 1000;

impl WalReader {
    /// The first commit of `stretch` that ends behind its begin; `None` where there is none.
    ///
    /// Where only rolled back transactions are printed, the first of as many as one run prints stands for a commit.
    ///
    /// # Errors
    /// Why the WAL cannot be read, as a sentence.
    pub(crate) async fn first_commit(&self, stretch: WalStretch) -> Result<Option<Commit>, String> {
        let WalStretch {
            timeline,
            from,
            to: end,
        } = stretch;
        // A commit may begin before `from` and end behind it: no restore that stops at `from` replays it.
        let before = Lsn(from.0.saturating_sub(BEFORE));
        if self.holds(timeline, before) {
            let near = Lsn(from.0.saturating_add(BEFORE).min(end.0));
            let dump = self.dump(timeline, (before, near), None).await?;
            if let Some(commit) = commits(&dump.output).find(|commit| commit.end > from) {
                return Ok(Some(commit));
            }
            judge_before(&dump, before, from)?;
        }
        let dump = self.dump(timeline, (from, end), Some(MOST)).await?;
        if let Some(commit) = commits(&dump.output).next() {
            return Ok(Some(commit));
        }
        judge_end(&dump, end)?;
        let output = dump.output;
        let printed = output
            .lines()
            .filter(|line| line.contains("desc: "))
            .count();
        Ok(output
            .lines()
            .find_map(transaction)
            .filter(|_| printed >= MOST))
    }

    /// Whether the segment that holds `lsn` is there.
    fn holds(&self, timeline: Timeline, lsn: Lsn) -> bool {
        let segment = WalSegment::holding(timeline, lsn, self.segment_size);
        let name = segment.name(self.segment_size);
        self.wal().join(name).exists()
    }

    fn wal(&self) -> PathBuf {
        self.data_directory.join("pg_wal")
    }

    async fn dump(
        &self,
        timeline: Timeline,
        (from, to): (Lsn, Lsn),
        limit: Option<usize>,
    ) -> Result<Dump, String> {
        let mut command = process::command(self.bin_directory.join("pg_waldump"));
        command
            .env("TZ", "UTC")
            .args(["--rmgr=Transaction", "--path"])
            .arg(self.wal())
            .arg(format!("--timeline={timeline}"))
            .arg(format!("--start={from}"))
            .arg(format!("--end={to}"));
        if let Some(limit) = limit {
            command.arg(format!("--limit={limit}"));
        }
        let finished = process::run(command, LIMIT)
            .await
            .map_err(|error| error.to_string())?;
        let failure = (!finished.status.success()).then(|| finished.last_words());
        Ok(Dump {
            output: String::from_utf8_lossy(&finished.stdout).into_owned(),
            failure: failure.map(|last_words| Failure {
                last_words,
                stderr: finished.stderr,
            }),
        })
    }
}

/// What one run of `pg_waldump` printed.
struct Dump {
    output: String,
    failure: Option<Failure>,
}

struct Failure {
    last_words: String,
    stderr: String,
}

impl Failure {
    fn told(&self) -> String {
        format!("the server's WAL cannot be read: {}", self.last_words)
    }
}

/// Judges how a run ended that read to `to`: it fails at the end of the WAL, too.
///
/// # Errors
/// Where it failed elsewhere: commits may follow.
fn judge_end(dump: &Dump, to: Lsn) -> Result<(), String> {
    let Some(failure) = &dump.failure else {
        return Ok(());
    };
    let stopped = stopped_at(&failure.stderr);
    let is_end = stopped.is_some_and(|at| at.0.saturating_add(PAGE) >= to.0);
    if is_end { Ok(()) } else { Err(failure.told()) }
}

/// Likewise for a run from `before` that looks for a record across `from`.
///
/// # Errors
/// Where it failed in between: such a record may follow.
fn judge_before(dump: &Dump, before: Lsn, from: Lsn) -> Result<(), String> {
    let stopped = dump.failure.as_ref().and_then(|it| stopped_at(&it.stderr));
    // The end of a segment that was switched is empty.
    let is_empty = stopped.is_some_and(|at| at.0 < before.0.saturating_add(PAGE));
    if is_empty {
        return Ok(());
    }
    judge_end(dump, from)
}

/// The history of `timeline` in `data_directory`; empty where there is none, as on timeline 1.
pub(crate) fn local_history(data_directory: &Path, timeline: Timeline) -> TimelineHistory {
    let path = data_directory.join("pg_wal").join(timeline.history_file());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.parse().unwrap_or_default()
}

/// The WAL between `from`, a position on `begin`, and `to`, which is on the timeline of `history`; empty where `begin` is no ancestor.
///
/// The segment that holds a switch is named after the newer timeline, so that is where a stretch ends.
pub(crate) fn stretches(
    history: &TimelineHistory,
    (begin, from): (Timeline, Lsn),
    (target, to): (Timeline, Lsn),
    size: SegmentSize,
) -> Vec<WalStretch> {
    let mut stretches = Vec::new();
    let (mut timeline, mut from) = (begin, from);
    let left = history
        .0
        .iter()
        .skip_while(|switch| switch.timeline != begin);
    for switch in left {
        let segment = Lsn(switch.at.0 / size.bytes() * size.bytes());
        if from < segment {
            stretches.push(WalStretch {
                timeline: switch.timeline,
                from,
                to: segment,
            });
            from = segment;
        }
        timeline = target;
    }
    if timeline != target {
        return Vec::new();
    }
    if from < to {
        stretches.push(WalStretch { timeline, from, to });
    }
    stretches
}

/// Where `pg_waldump` met no valid record; `None` where it failed for another reason.
fn stopped_at(stderr: &str) -> Option<Lsn> {
    let ends = ["error in WAL record at", "could not find a valid record"];
    let line = stderr
        .lines()
        .find(|line| ends.iter().any(|end| line.contains(end)))?;
    // `error in WAL record at 0/3000110: invalid record length at 0/3000148: …`: first the last valid record, then what follows it.
    let mut words = line.split_whitespace().rev();
    words.find_map(|word| word.trim_matches([':', ',', ';']).parse().ok())
}

/// The commits that `pg_waldump` (in UTC) printed, in their order.
fn commits(output: &str) -> impl Iterator<Item = Commit> + '_ {
    let commits = output.lines().filter(|line| line.contains("desc: COMMIT"));
    commits.filter_map(transaction)
}

/// The end of a transaction: `rmgr: Transaction len (rec/tot): 34/ 34, …, lsn: 0/03000110, …, desc: COMMIT 2026-11-21 07:47:12.500000 UTC; …`.
fn transaction(line: &str) -> Option<Commit> {
    let (head, description) = line.split_once("desc: ")?;
    let (_, words) = description.split_once(' ')?;
    // A prepared transaction's number comes first: `COMMIT_PREPARED 746: 2026-11-21 …`.
    let words = words
        .split_once(": ")
        .filter(|(id, _)| id.trim().parse::<u64>().is_ok())
        .map_or(words, |(_, rest)| rest);
    let time: DateTime = words.split(" UTC").next()?.trim().parse().ok()?;
    let at = time.to_zoned(TimeZone::UTC).ok()?.timestamp();
    let total = head.split_once("(rec/tot):")?.1.split(',').next()?;
    let total: u64 = total.split_once('/')?.1.trim().parse().ok()?;
    let lsn = head.split_once("lsn: ")?.1.split(',').next()?;
    let begin: Lsn = lsn.trim().parse().ok()?;
    // The header of each page that the record goes on into.
    let pages = (begin.0 % PAGE + total.saturating_sub(1)) / PAGE;
    Some(Commit {
        end: Lsn(begin.0 + total + pages * PAGE_HEADER),
        at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commits_of_a_waldump_are_found_with_their_ends() {
        let output = "\
rmgr: Transaction len (rec/tot):     34/    34, tx:        745, lsn: 0/03000110, prev 0/030000D8, desc: ABORT 2026-11-21 07:47:11.000000 UTC\n\
rmgr: Transaction len (rec/tot):     34/   134, tx:        746, lsn: 0/03000140, prev 0/030000D8, desc: COMMIT 2026-11-21 07:47:12.500000 UTC; inval msgs: catcache 7\n\
rmgr: Transaction len (rec/tot):     34/    34, tx:        747, lsn: 0/03000200, prev 0/030000D8, desc: COMMIT_PREPARED 746: 2026-11-21 07:47:13.000000 UTC\n\
rmgr: Transaction len (rec/tot):     34/    34, tx:        747, lsn: 0/03000200, prev 0/030000D8, desc: ASSIGNMENT xtop 745: subxacts: 746\n";
        let found: Vec<_> = commits(output).collect();
        let expected = [
            (0x0300_0140 + 134, "2026-11-21T07:47:12.5Z"),
            (0x0300_0200 + 34, "2026-11-21T07:47:13Z"),
        ];
        let expected = expected.map(|(end, at)| Commit {
            end: Lsn(end),
            at: at.parse().unwrap(),
        });
        assert_eq!(found, expected);
        assert_eq!(commits("").next(), None);
        let first = output.lines().find_map(transaction).unwrap();
        assert_eq!(first.at, "2026-11-21T07:47:11Z".parse().unwrap());
    }

    fn failed(stderr: &str) -> Dump {
        Dump {
            output: String::new(),
            failure: Some(Failure {
                last_words: stderr.to_owned(),
                stderr: stderr.to_owned(),
            }),
        }
    }

    #[test]
    fn only_an_error_where_reading_was_to_end_is_the_end_of_the_wal() {
        let to = Lsn(0x0300_8000);
        for (stderr, is_end) in [
            (
                "pg_waldump: error: error in WAL record at 0/3007FD0: invalid record length at 0/3008000: expected at least 24, got 0",
                true,
            ),
            (
                "pg_waldump: error: error in WAL record at 0/3005F00: unexpected pageaddr 0/1006000 in WAL segment 000000010000000000000003, LSN 0/3006000, offset 24576",
                true,
            ),
            (
                "pg_waldump: error: could not find a valid record after 0/3007000",
                true,
            ),
            (
                "pg_waldump: error: error in WAL record at 0/3000110: invalid record length at 0/3000148: expected at least 24, got 0",
                false,
            ),
            // The LSN within the damaged record is not its place.
            (
                "pg_waldump: error: error in WAL record at 0/3000110: record with incorrect prev-link 0/3008000 at 0/3000148",
                false,
            ),
            (
                "pg_waldump: error: could not find a valid record after 0/3000000",
                false,
            ),
            (
                "pg_waldump: error: could not open file \"000000010000000000000003\": No such file or directory",
                false,
            ),
        ] {
            assert_eq!(judge_end(&failed(stderr), to).is_ok(), is_end, "{stderr}");
        }
        let whole = Dump {
            output: String::new(),
            failure: None,
        };
        assert_eq!(judge_end(&whole, to), Ok(()));
    }

    #[test]
    fn before_the_archives_end_only_an_empty_rest_of_a_segment_may_lie() {
        let (before, from) = (Lsn(0x02FF_0000), Lsn(0x0300_0000));
        for (stderr, expected) in [
            ("error: could not find a valid record after 0/2FF0000", true),
            (
                "error: error in WAL record at 0/2FF8000: invalid magic number 0000 in WAL segment 000000010000000000000002, LSN 0/2FFA000, offset 16752640",
                false,
            ),
            (
                "error: error in WAL record at 0/3000110: invalid record length at 0/3000148: expected at least 24, got 0",
                true,
            ),
        ] {
            let judged = judge_before(&failed(stderr), before, from);
            assert_eq!(judged.is_ok(), expected, "{stderr}");
        }
    }

    #[test]
    fn the_wal_after_the_archives_end_lies_on_each_timeline_that_was_left_since() {
        let size = SegmentSize::default();
        let lsn = |segment: u64, offset| Lsn(segment * size.bytes() + offset);
        let history = "1\t0/50000A0\tr\n2\t0/70000A0\tr\n";
        let history: TimelineHistory = history.parse().unwrap();
        let of = |begin, from, to| {
            let found = stretches(&history, (Timeline(begin), from), (Timeline(3), to), size);
            let found = found
                .iter()
                .map(|one| (one.timeline.0, one.from.0 >> 24, one.to.0 >> 24));
            found.collect::<Vec<_>>()
        };
        assert_eq!(
            of(1, lsn(4, 0), lsn(8, 99)),
            [(1, 4, 5), (2, 5, 7), (3, 7, 8)]
        );
        assert_eq!(of(1, lsn(5, 0), lsn(8, 99)), [(2, 5, 7), (3, 7, 8)]);
        assert_eq!(of(2, lsn(7, 0), lsn(7, 99)), [(3, 7, 7)]);
        assert_eq!(of(3, lsn(8, 0), lsn(8, 0)), []);
        // Of a timeline that this one does not descend from, nothing can be said.
        assert_eq!(of(4, lsn(4, 0), lsn(8, 0)), []);
        let first = TimelineHistory::default();
        let all = stretches(
            &first,
            (Timeline(1), lsn(4, 0)),
            (Timeline(1), lsn(8, 1)),
            size,
        );
        assert_eq!(all.len(), 1);
    }
}
