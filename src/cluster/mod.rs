//! The node's view of itself: which role it has, sampled each second, and what it may serve. Judged purely.

mod sample;

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::model::Timeline;
pub use sample::Sampler;

/// What PostgreSQL said of itself at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    pub at: Timestamp,
    pub in_recovery: bool,
    pub timeline: Timeline,
    pub system_identifier: u64,
    /// A standby receives WAL at the moment.
    pub streaming: bool,
}

/// What this node knows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct View {
    /// The last sample that could be taken.
    pub sample: Option<Sample>,
    /// Since when sampling fails, and why; `None` while it works.
    pub failing: Option<(Timestamp, String)>,
    /// When a login through PgBouncer last worked.
    pub pgbouncer_at: Option<Timestamp>,
    /// A timeline of this cluster that the archive knows and this server does not: another node was promoted.
    pub superseded_by: Option<Timeline>,
}

/// An answer is made from what is at most this old.
const FRESH: Duration = Duration::from_secs(5);
/// The last role is held this long when sampling fails: a busy second must not shut an application out.
const HELD: Duration = Duration::from_secs(15);

impl View {
    /// The role that is served: `Some(true)` in recovery; `None` when it is not known, or too old.
    pub fn in_recovery(&self, now: Timestamp) -> Option<bool> {
        let sample = self.sample.as_ref()?;
        let limit = if self.failing.is_some() { HELD } else { FRESH };
        (age(sample.at, now) <= limit).then_some(sample.in_recovery)
    }

    /// Whether this node judges what is about the whole cluster: the primary by its last sample, unless superseded.
    pub fn speaks_for_cluster(&self) -> bool {
        let primary = self.sample.is_some_and(|sample| !sample.in_recovery);
        primary && self.superseded_by.is_none()
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
            "superseded: the archive knows timeline {timeline}, this server does not"
        )),
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
        };
        View {
            sample: Some(sample),
            pgbouncer_at: Some(at(100)),
            ..View::default()
        }
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
    fn the_primary_speaks_for_the_cluster_also_while_it_is_down_until_it_is_superseded() {
        let down = View {
            failing: Some((at(101), "refused".into())),
            ..view(false)
        };
        let superseded = View {
            superseded_by: Some(Timeline(2)),
            ..view(false)
        };
        for (what, view, speaks) in [
            ("primary", view(false), true),
            ("primary that is down", down, true),
            ("replica", view(true), false),
            ("superseded", superseded, false),
            ("not sampled yet", View::default(), false),
        ] {
            assert_eq!(view.speaks_for_cluster(), speaks, "{what}");
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
