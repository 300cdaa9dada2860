//! The commits that a loss of the primary would cost now.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use super::live_server::LiveServer;
use crate::model::{Lsn, Timeline};
use crate::postgres::{Commit, WalReader, WalStretch};
use crate::restore::secs;

/// Seconds of committed work that a loss of the primary at `live`'s moment would have cost.
///
/// Measured from the first commit past `archived`, the end of the recoverable WAL, to that moment; 0 without such a commit.
/// Read from the live server's own WAL with `pg_waldump`, as the live RPO is: an idle primary loses nothing, however old its
/// last commit.
///
/// # Errors
/// Why it is not known, as a sentence.
pub(crate) async fn measure_rpo(
    bin_directory: &Path,
    live: &LiveServer,
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
        bin_directory: bin_directory.to_owned(),
        data_directory: server.data_directory.clone(),
        segment_size: server.segment_size,
    };
    let stretch = WalStretch {
        timeline,
        from: archived,
        to: end,
    };
    match reader.first_commit(stretch).await? {
        Some(first) => lost_secs(first, server.now, live.clock_behind),
        None => Ok(0.0),
    }
}

/// Never 0: the commit is lost, whatever the clocks of this node and of the primary make of its age.
///
/// # Errors
/// Where this node's clock is behind the primary's: it cannot measure the age of the primary's commit.
fn lost_secs(first: Commit, now: Timestamp, behind: Option<Duration>) -> Result<f64, String> {
    const LEAST: f64 = 0.1;
    /// Clocks that are kept by the same time service differ by less.
    const TOLERATED: Duration = Duration::from_secs(1);
    let ahead = Duration::try_from(first.at.duration_since(now)).ok();
    if let Some(behind) = behind.max(ahead).filter(|behind| *behind > TOLERATED) {
        return Err(format!(
            "commits are lost, and how old they are is unknown: this node's clock is at least {:.1} s behind the primary's",
            behind.as_secs_f64()
        ));
    }
    let age = Duration::try_from(now.duration_since(first.at));
    Ok(age.map_or(LEAST, |age| secs(age).max(LEAST)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_commit_is_a_loss_and_a_clock_that_is_behind_cannot_tell_its_age() {
        let at = |millisecond| Timestamp::from_millisecond(millisecond).unwrap();
        let lost = |committed, behind| {
            let commit = Commit {
                end: Lsn(1),
                at: at(committed),
            };
            lost_secs(commit, at(20_000), behind)
        };
        for (committed, expected) in [(18_500, 1.5), (19_999, 0.1), (20_000, 0.1), (20_500, 0.1)] {
            let lost = lost(committed, None).unwrap();
            assert!((lost - expected).abs() < 1e-9, "{committed}: {lost}");
        }
        assert!(lost(21_500, None).unwrap_err().contains("1.5 s behind"));
        let behind = |secs| Some(Duration::from_secs(secs));
        assert!(lost(10_000, behind(1)).is_ok());
        assert!(
            lost(10_000, behind(30))
                .unwrap_err()
                .contains("30.0 s behind")
        );
    }
}
