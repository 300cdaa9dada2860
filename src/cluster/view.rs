//! The node's view of itself: which role it has, sampled each second, and what it may serve. Judged purely.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{Lsn, Timeline};

/// What PostgreSQL said of itself at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    pub at: Timestamp,
    pub in_recovery: bool,
    pub timeline: Timeline,
    pub system_identifier: u64,
    /// A standby receives WAL at the moment.
    pub streaming: bool,
    /// Written by a primary, replayed by a standby; `None` before anything was replayed.
    pub position: Option<Lsn>,
}

/// What this node knows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The last sample that could be taken.
    pub sample: Option<Sample>,
    /// Since when sampling fails, and why; `None` while it works.
    pub failing: Option<(Timestamp, String)>,
    /// When a login through PgBouncer last worked.
    pub pgbouncer_at: Option<Timestamp>,
    /// The highest timeline of this cluster that anything knows of: a peer, Redis, the bucket, or this node's disk.
    pub highest: Option<Timeline>,
    /// [`View::highest`] where it is above this primary's own: another node was promoted.
    pub superseded_by: Option<Timeline>,
    /// The peers were asked since the daemon began. Before all were, a primary is not served.
    pub asked_peers: bool,
    /// Likewise the bucket, Redis, and this node's own disk.
    pub asked_archive: bool,
}

/// An answer is made from what is at most this old.
const FRESH: Duration = Duration::from_secs(5);
/// The last role is held this long when sampling fails: a busy second must not shut an application out.
const HELD: Duration = Duration::from_secs(15);

impl View {
    /// Takes in what the server said of itself.
    pub fn saw(&mut self, sample: Sample) {
        let another = |last: Sample| last.system_identifier != sample.system_identifier;
        if self.sample.is_some_and(another) {
            self.highest = None;
        }
        (self.sample, self.failing) = (Some(sample), None);
        self.learn(sample.timeline);
    }

    /// Takes in a timeline of this cluster that something knows of.
    pub fn learn(&mut self, timeline: Timeline) {
        self.highest = self.highest.max(Some(timeline));
        let primary = self.sample.filter(|sample| !sample.in_recovery);
        self.superseded_by = self
            .highest
            .filter(|highest| primary.is_some_and(|own| *highest > own.timeline));
    }

    /// This node is the primary, and no other was promoted after it.
    pub fn leads(&self, now: Timestamp) -> bool {
        self.in_recovery(now) == Some(false) && self.superseded_by.is_none()
    }

    /// The same by what it last said of itself, however long ago.
    pub fn led_last(&self) -> bool {
        let sample = self.sample.as_ref();
        sample.is_some_and(|sample| !sample.in_recovery) && self.superseded_by.is_none()
    }

    /// The role that is served: `Some(true)` in recovery; `None` when it is not known, or too old.
    pub fn in_recovery(&self, now: Timestamp) -> Option<bool> {
        let sample = self.sample.as_ref()?;
        let limit = if self.failing.is_some() { HELD } else { FRESH };
        (age(sample.at, now) <= limit).then_some(sample.in_recovery)
    }

    fn pgbouncer_works(&self, now: Timestamp) -> bool {
        self.pgbouncer_at.is_some_and(|at| age(at, now) <= HELD)
    }
}

fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or(Duration::ZERO)
}

/// Whether writes may come here.
///
/// # Errors
/// Why not, as a sentence.
pub fn judge_primary(view: &View, now: Timestamp) -> Result<(), String> {
    match (view.in_recovery(now), view.superseded_by) {
        (None, _) => Err(unknown(view)),
        (Some(true), _) => Err("this server is in recovery".to_owned()),
        (Some(false), Some(timeline)) => Err(format!(
            "superseded: timeline {timeline} exists, this server is not on it"
        )),
        (Some(false), None) if !(view.asked_peers && view.asked_archive) => {
            Err("it was not asked yet whether another node was promoted".to_owned())
        }
        (Some(false), None) => through_pgbouncer(view, now),
    }
}

/// Whether reads may come here; how far the replay lags does not matter.
///
/// # Errors
/// Why not, as a sentence.
pub fn judge_replica(view: &View, now: Timestamp) -> Result<(), String> {
    match view.in_recovery(now) {
        None => Err(unknown(view)),
        Some(false) => Err("this server is not in recovery".to_owned()),
        Some(true) => through_pgbouncer(view, now),
    }
}

fn through_pgbouncer(view: &View, now: Timestamp) -> Result<(), String> {
    let works = view.pgbouncer_works(now);
    works
        .then_some(())
        .ok_or_else(|| "a login through this node's PgBouncer does not work".to_owned())
}

fn unknown(view: &View) -> String {
    let reason = view
        .failing
        .as_ref()
        .map_or("not sampled yet", |(_, reason)| reason);
    format!("the role is not known: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn view(in_recovery: bool) -> View {
        let sample = Sample {
            at: at(100),
            in_recovery,
            timeline: Timeline(1),
            system_identifier: 7,
            streaming: in_recovery,
            position: None,
        };
        let mut view = View {
            pgbouncer_at: Some(at(100)),
            asked_peers: true,
            asked_archive: true,
            ..View::default()
        };
        view.saw(sample);
        view
    }

    #[test]
    fn each_role_is_served_where_it_is_and_nowhere_else() {
        assert_eq!(judge_primary(&view(false), at(101)), Ok(()));
        assert!(judge_primary(&view(true), at(101)).is_err());
        assert_eq!(judge_replica(&view(true), at(101)), Ok(()));
        assert!(judge_replica(&view(false), at(101)).is_err());
        assert!(
            judge_primary(&View::default(), at(101))
                .unwrap_err()
                .contains("not sampled yet")
        );
    }

    #[test]
    fn a_higher_timeline_supersedes_a_primary_and_no_standby() {
        for (in_recovery, known, superseded_by) in [
            (false, 1, None),
            (false, 2, Some(Timeline(2))),
            (true, 2, None),
        ] {
            let mut view = view(in_recovery);
            view.learn(Timeline(known));
            view.learn(Timeline(1));
            assert_eq!(view.superseded_by, superseded_by, "{in_recovery} {known}");
        }
        // It was rewound and follows, then leads again on a timeline of its own.
        let mut view = view(false);
        view.learn(Timeline(2));
        let sample = view.sample.unwrap();
        view.saw(Sample {
            timeline: Timeline(3),
            ..sample
        });
        assert_eq!(view.superseded_by, None);
        // Another cluster's timelines tell nothing of this one.
        view.saw(Sample {
            system_identifier: 8,
            ..sample
        });
        assert_eq!(
            (view.highest, view.superseded_by),
            (Some(Timeline(1)), None)
        );
    }

    #[test]
    fn a_primary_that_is_silent_led_last_and_serves_nothing() {
        let long_after = at(100_000);
        for (in_recovery, superseded_by, led) in [
            (false, None, true),
            (true, None, false),
            (false, Some(Timeline(2)), false),
        ] {
            let silent = View {
                superseded_by,
                ..view(in_recovery)
            };
            assert!(!silent.leads(long_after));
            assert_eq!(silent.led_last(), led, "{in_recovery} {superseded_by:?}");
        }
        assert!(!View::default().led_last());
    }

    #[test]
    fn a_primary_is_not_served_before_the_others_were_asked() {
        let starting = View {
            asked_peers: false,
            ..view(false)
        };
        let reason = judge_primary(&starting, at(101)).unwrap_err();
        assert!(reason.contains("not asked yet"), "{reason}");
        let standby = View {
            asked_archive: false,
            ..view(true)
        };
        assert_eq!(judge_replica(&standby, at(101)), Ok(()));
    }

    #[test]
    fn a_superseded_primary_serves_nothing_and_neither_does_one_without_pgbouncer() {
        let superseded = View {
            superseded_by: Some(Timeline(2)),
            ..view(false)
        };
        assert!(
            judge_primary(&superseded, at(101))
                .unwrap_err()
                .contains("timeline 2")
        );
        for pgbouncer_at in [None, Some(at(80))] {
            let cut = View {
                pgbouncer_at,
                ..view(false)
            };
            assert!(
                judge_primary(&cut, at(101))
                    .unwrap_err()
                    .contains("PgBouncer")
            );
        }
    }

    #[test]
    fn the_last_role_is_held_for_a_while_when_sampling_fails() {
        let failing = View {
            failing: Some((at(101), "refused".into())),
            pgbouncer_at: Some(at(112)),
            ..view(false)
        };
        assert_eq!(judge_primary(&failing, at(114)), Ok(()));
        assert!(
            judge_primary(&failing, at(116))
                .unwrap_err()
                .contains("refused")
        );
        // Without a failure an old sample means that sampling itself stands still.
        assert!(
            judge_primary(
                &View {
                    failing: None,
                    ..failing
                },
                at(114)
            )
            .is_err()
        );
    }
}
