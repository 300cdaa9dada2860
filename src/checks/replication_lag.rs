//! Judges how far a standby is behind, in bytes and in seconds. Pure.
//!
//! `now() - pg_last_xact_replay_timestamp()` grows while the primary idles, and reads 0 where the link is cut and
//! everything received is replayed. The primary's own positions, each with its time, are right in both cases.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::Timestamp;

use super::{LagLimits, Limits};
use crate::cluster::{Lag, LsnRing};
use crate::model::{Lsn, Verdict, age};

/// When the primary's newest sample is older than this, its position is not known.
const FRESH: Duration = Duration::from_secs(15);

/// What is known of a standby and its primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standby<'a> {
    /// The primary's `pg_current_wal_lsn()` with its times.
    pub primary: &'a LsnRing,
    /// `pg_last_wal_replay_lsn()`; `None` (NULL) before anything was replayed.
    pub replayed: Option<Lsn>,
    /// `pg_last_wal_receive_lsn()`; `None` (NULL) where nothing was streamed.
    pub received: Option<Lsn>,
    /// `recovery_min_apply_delay`: it replays that much later on purpose.
    pub delay: Duration,
    /// `pg_stat_wal_receiver` has a row with the status `streaming`.
    pub streaming: bool,
}

/// Judges one standby's replay lag at `now`.
pub(crate) fn judge_replication_lag(
    standby: &Standby,
    limits: &LagLimits,
    now: Timestamp,
) -> Verdict {
    let known = standby
        .replayed
        .and_then(|replayed| standby.primary.lag(replayed, now));
    if !standby.streaming {
        let behind = known.map_or_else(String::new, |lag| format!("; {}", in_words(lag)));
        return Verdict::Critical(format!("not streaming from the primary{behind}"));
    }
    let Some((sampled_at, _)) = standby.primary.samples().last() else {
        return Verdict::Unknown(
            "the primary's position is not known here: xdb's daemon keeps it, asking cluster.peers"
                .to_owned(),
        );
    };
    let age = age(*sampled_at, now);
    if age > FRESH {
        return Verdict::Unknown(format!(
            "the primary's position is not known since {} ({} s ago)",
            sampled_at.strftime("%F %T UTC"),
            age.as_secs()
        ));
    }
    let Some(lag) = known else {
        return Verdict::Unknown("the standby has replayed nothing yet".to_owned());
    };
    // What a delayed standby has received and keeps is no lag.
    let received = standby.received.filter(|_| !standby.delay.is_zero());
    let missing = received.and_then(|received| standby.primary.lag(received, now));
    let bytes = judge_bytes(missing.unwrap_or(lag).bytes, &limits.bytes);
    let beyond = lag.time.saturating_sub(standby.delay);
    let time = limits.secs.judge(beyond.as_secs_f64(), |limit| {
        let delayed = match standby.delay.as_secs() {
            0 => String::new(),
            secs => format!(" beyond its delay of {secs} s"),
        };
        format!("{} (limit {limit} s{delayed})", in_words(lag))
    });
    match worse(time, bytes) {
        // The positions begin after the standby's: how long it is behind is not known yet.
        Verdict::Ok if lag.at_least && standby.delay.is_zero() => Verdict::Unknown(format!(
            "{}: the primary is watched for no longer than that",
            in_words(lag)
        )),
        verdict => verdict,
    }
}

/// Judges bytes alone: all that a primary knows of its standbys.
pub(super) fn judge_bytes(bytes: u64, limits: &Limits) -> Verdict {
    #[expect(clippy::cast_precision_loss, reason = "a limit needs no more digits")]
    let number = bytes as f64;
    limits.judge(number, |limit| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "for showing"
        )]
        let limit = ByteSize(limit as u64);
        format!("replay is {} behind (limit {limit})", ByteSize(bytes))
    })
}

fn in_words(lag: Lag) -> String {
    let least = if lag.at_least { "at least " } else { "" };
    let secs = lag.time.as_secs_f64();
    format!(
        "replay is {} and {least}{secs:.1} s behind",
        ByteSize(lag.bytes)
    )
}

fn worse(one: Verdict, other: Verdict) -> Verdict {
    match (&one, &other) {
        (Verdict::Critical(_), _) | (Verdict::Warning(_), Verdict::Ok | Verdict::Warning(_)) => one,
        _ => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000;

    fn ring(samples: &[(i64, u64)]) -> LsnRing {
        let mut ring = LsnRing::default();
        for (second, lsn) in samples {
            ring.push(Timestamp::from_second(*second).unwrap(), Lsn(*lsn));
        }
        ring
    }

    #[test]
    fn a_standby_is_judged_by_streaming_freshness_bytes_and_seconds() {
        let limits = LagLimits {
            bytes: Limits {
                warning: Some(1000.0),
                critical: Some(5000.0),
                ..Limits::default()
            },
            secs: Limits {
                warning: Some(10.0),
                critical: Some(60.0),
                ..Limits::default()
            },
        };
        let now = Timestamp::from_second(NOW).unwrap();
        for (what, samples, replayed, streaming, word) in [
            ("caught up", &[(1000, 10)][..], Some(10), true, "ok"),
            (
                "a little behind",
                &[(999, 10), (1000, 20)],
                Some(15),
                true,
                "ok",
            ),
            (
                "seconds",
                &[(900, 5), (980, 10), (1000, 10)],
                Some(5),
                true,
                "warning",
            ),
            (
                "many seconds",
                &[(900, 5), (910, 10), (1000, 10)],
                Some(5),
                true,
                "critical",
            ),
            (
                "bytes",
                &[(999, 10), (1000, 2000)],
                Some(10),
                true,
                "warning",
            ),
            (
                "bytes worse than seconds",
                &[(900, 5), (980, 6), (1000, 9000)],
                Some(5),
                true,
                "critical",
            ),
            (
                "cut, though all that came is replayed",
                &[(1000, 10)],
                Some(10),
                false,
                "critical",
            ),
            ("cut, primary unknown", &[], Some(10), false, "critical"),
            ("no sample", &[], Some(10), true, "unknown"),
            ("old sample", &[(984, 10)], Some(10), true, "unknown"),
            ("nothing replayed", &[(1000, 10)], None, true, "unknown"),
        ] {
            let primary = ring(samples);
            let standby = Standby {
                primary: &primary,
                replayed: replayed.map(Lsn),
                received: replayed.map(Lsn),
                delay: Duration::ZERO,
                streaming,
            };
            let verdict = judge_replication_lag(&standby, &limits, now);
            assert_eq!(verdict.word(), word, "{what}: {verdict:?}");
        }
    }

    #[test]
    fn a_standby_that_is_delayed_on_purpose_is_judged_beyond_its_delay() {
        let limits = LagLimits {
            bytes: Limits {
                warning: Some(1000.0),
                ..Limits::default()
            },
            secs: Limits {
                warning: Some(10.0),
                critical: Some(60.0),
                ..Limits::default()
            },
        };
        let now = Timestamp::from_second(NOW).unwrap();
        let primary = ring(&[(300, 5), (400, 10), (1000, 9000)]);
        for (what, replayed, received, delay, word) in [
            ("within its delay", 5, 9000, 600, "ok"),
            ("late beyond it", 5, 9000, 570, "warning"),
            ("far beyond it", 5, 9000, 500, "critical"),
            ("it receives too little", 5, 4000, 600, "warning"),
            ("no delay", 5, 9000, 0, "critical"),
        ] {
            let standby = Standby {
                primary: &primary,
                replayed: Some(Lsn(replayed)),
                received: Some(Lsn(received)),
                delay: Duration::from_secs(delay),
                streaming: true,
            };
            let verdict = judge_replication_lag(&standby, &limits, now);
            assert_eq!(verdict.word(), word, "{what}: {verdict:?}");
        }
    }
}
