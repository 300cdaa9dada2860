//! The node's view of itself: which role it has, sampled each second, and what it may serve. Judged purely.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PgBouncerCondition, PgBouncerState, SampleFailure};
use crate::model::{Lsn, ServerPosition, Supersession, Timeline, TimelineHistory};
use crate::postgres::Life;

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
    /// The server was known to be down since the last sample: its role must be sampled before it is served again.
    #[serde(default)]
    pub down: bool,
    /// When it last answered anything, an error included.
    #[serde(default)]
    pub answered_at: Option<Timestamp>,
    /// How far this primary has written at least, by its `pg_wal`, while it cannot be sampled.
    #[serde(default)]
    pub written: Option<Lsn>,
    /// When PgBouncer was last known to live.
    pub pgbouncer_at: Option<Timestamp>,
    /// The last look at PgBouncer; `None` before the first.
    #[serde(default)]
    pub pgbouncer: Option<PgBouncerState>,
    /// The highest timeline of this cluster that is proven: this server's own, or the one that supersedes it.
    pub highest: Option<Timeline>,
    /// The timeline that another node was promoted to, where [`View::proof`] says so of this primary.
    pub superseded_by: Option<Timeline>,
    /// What proves it; kept while this server is a standby.
    #[serde(default)]
    pub proof: Option<Supersession>,
    /// The ancestors of the server's own timeline; `None` where they are not known.
    #[serde(default)]
    pub history: Option<TimelineHistory>,
    /// The peers were asked since the daemon began. Before all were, a primary is not served.
    pub asked_peers: bool,
    /// Likewise the bucket, Redis, and this node's own disk.
    pub asked_archive: bool,
}

/// An answer is made from what is at most this old.
const FRESH: Duration = Duration::from_secs(5);
/// While PostgreSQL or PgBouncer is silent, its last known state is held this long: a busy second must not shut an
/// application out. What is known to be down is not held.
const HELD: Duration = Duration::from_secs(15);

impl View {
    /// Takes in what the server said of itself.
    pub fn saw(&mut self, sample: Sample) {
        let another = |last: Sample| last.system_identifier != sample.system_identifier;
        if self.sample.is_some_and(another) {
            (self.proof, self.history) = (None, None);
        }
        (self.sample, self.failing) = (Some(sample), None);
        (self.down, self.answered_at, self.written) = (false, Some(sample.at), None);
        self.judge_proof();
    }

    /// Takes in that it could not be sampled.
    pub fn failed(&mut self, failure: SampleFailure, now: Timestamp) {
        let since = self.failing.as_ref().map_or(now, |(since, _)| *since);
        self.failing = Some((since, failure.reason));
        match failure.life {
            Life::Down => self.down = true,
            Life::Up => self.answered_at = Some(now),
            Life::Unknown => {}
        }
    }

    /// Takes in how far the server of `sample` has written since, by its `pg_wal`. Its role may be held for long, and another
    /// node may have been promoted from WAL behind the sample.
    pub fn wrote(&mut self, sample: &Sample, written: Lsn) {
        if self.failing.is_some() && self.sample.as_ref() == Some(sample) {
            self.written = self.written.max(Some(written));
            self.judge_proof();
        }
    }

    /// Takes in one look at PgBouncer.
    pub fn saw_pgbouncer(&mut self, state: PgBouncerState) {
        if state.lives() {
            self.pgbouncer_at = Some(state.at);
        }
        self.pgbouncer = Some(state);
    }

    /// Takes in the ancestors of the server's own timeline.
    pub fn descends(&mut self, history: Option<TimelineHistory>) {
        self.history = history;
        self.judge_proof();
    }

    /// Takes in the proof that another node was promoted; of several the highest counts. `true` when it is news.
    pub fn learn(&mut self, proof: Supersession) -> bool {
        let known = self.proof.as_ref().map(|known| known.timeline);
        let own = self.position();
        let is_news = own.is_some_and(|own| proof.supersedes(&own)) && Some(proof.timeline) > known;
        if is_news {
            self.remember(proof);
        }
        is_news
    }

    /// Takes in what was proven before this daemon began; whether it supersedes this server shows when that is a primary.
    pub fn remember(&mut self, proof: Supersession) {
        let known = self.proof.as_ref().map(|known| known.timeline);
        if Some(proof.timeline) > known {
            self.proof = Some(proof);
            self.judge_proof();
        }
    }

    /// Takes the proof back that `is_wrong` names; `true` when there was one.
    pub fn unlearn(&mut self, is_wrong: impl FnOnce(&Supersession) -> bool) -> bool {
        let wrong = self.proof.as_ref().is_some_and(is_wrong);
        if wrong {
            self.proof = None;
            self.judge_proof();
        }
        wrong
    }

    fn judge_proof(&mut self) {
        let own = self.position();
        let proof = self.proof.as_ref();
        let proof = proof.filter(|proof| own.is_some_and(|own| proof.supersedes(&own)));
        self.superseded_by = proof.map(|proof| proof.timeline);
        let own = self.sample.map(|sample| sample.timeline);
        self.highest = own.max(self.superseded_by);
    }

    /// Where this primary stands; `None` for a standby, which nothing supersedes.
    pub fn position(&self) -> Option<ServerPosition> {
        let sample = self.sample.filter(|sample| !sample.in_recovery)?;
        Some(ServerPosition {
            system_identifier: sample.system_identifier,
            timeline: sample.timeline,
            lsn: sample.position.max(self.written)?,
            history: self.history.clone(),
        })
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
    ///
    /// A server that answers and refuses xdb's own login keeps its last role, unless PgBouncer's login reads another.
    pub fn in_recovery(&self, now: Timestamp) -> Option<bool> {
        let sample = self.sample.as_ref()?;
        if self.failing.is_none() {
            return (age(sample.at, now) <= FRESH).then_some(sample.in_recovery);
        }
        let answered_at = self.answered_at.unwrap_or(sample.at);
        let is_held = !self.down && age(answered_at, now) <= HELD;
        let through_pgbouncer = self
            .pgbouncer
            .as_ref()
            .filter(|seen| age(seen.at, now) <= FRESH);
        let contradicts = through_pgbouncer
            .and_then(|seen| seen.in_recovery)
            .is_some_and(|in_recovery| in_recovery != sample.in_recovery);
        (is_held && !contradicts).then_some(sample.in_recovery)
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

/// PgBouncer lives, or was silent for a short while only. One that is full, paused or refuses xdb's own login lives.
fn through_pgbouncer(view: &View, now: Timestamp) -> Result<(), String> {
    let seen = view.pgbouncer.as_ref();
    if let Some(gone) = seen.filter(|seen| seen.condition == PgBouncerCondition::Gone) {
        return Err(format!("PgBouncer is down: {}", gone.reason()));
    }
    if view.pgbouncer_at.is_some_and(|at| age(at, now) <= HELD) {
        return Ok(());
    }
    Err(match seen {
        Some(seen) if !seen.lives() => format!(
            "a login through this node's PgBouncer does not work: {}",
            seen.reason()
        ),
        _ => "a login through this node's PgBouncer was not tried in time".to_owned(),
    })
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
    use crate::model::TimelineSwitch;

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
            position: Some(Lsn(200)),
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

    fn proof(timeline: u32, switch: u64) -> Supersession {
        let left = TimelineSwitch {
            timeline: Timeline(1),
            at: Lsn(switch),
        };
        Supersession {
            system_identifier: 7,
            timeline: Timeline(timeline),
            history: TimelineHistory(vec![left]),
            proven_by: "db2 runs on it".to_owned(),
            at: at(100),
        }
    }

    #[test]
    fn only_a_proven_timeline_supersedes_a_primary_and_no_standby() {
        for (what, in_recovery, proof, superseded_by) in [
            ("left before", false, proof(2, 100), Some(Timeline(2))),
            ("left later", false, proof(2, 300), None),
            ("absurd", false, proof(4_000_000_000, 100), None),
            ("a standby", true, proof(2, 100), None),
        ] {
            let mut view = view(in_recovery);
            assert_eq!(view.learn(proof.clone()), superseded_by.is_some(), "{what}");
            assert!(!view.learn(proof), "{what}");
            assert_eq!(view.superseded_by, superseded_by, "{what}");
        }
        let mut view = view(false);
        let sample = view.sample.unwrap();
        assert!(view.learn(proof(2, 100)));
        // It was rewound and follows, then leads again on a timeline of its own.
        view.saw(Sample {
            in_recovery: true,
            ..sample
        });
        assert_eq!(view.superseded_by, None);
        view.saw(Sample {
            timeline: Timeline(3),
            ..sample
        });
        assert_eq!(view.superseded_by, None);
        view.saw(sample);
        assert_eq!(view.superseded_by, Some(Timeline(2)));
        assert!(!view.unlearn(|proof| proof.timeline == Timeline(3)));
        assert!(view.unlearn(|proof| proof.timeline == Timeline(2)));
        assert_eq!(
            (view.highest, view.superseded_by),
            (Some(Timeline(1)), None)
        );
        // Another cluster's timelines tell nothing of this one.
        view.remember(proof(2, 100));
        view.saw(Sample {
            system_identifier: 8,
            ..sample
        });
        assert_eq!((view.proof, view.superseded_by), (None, None));
    }

    #[test]
    fn a_primary_that_cannot_be_sampled_is_superseded_by_what_left_it_after_the_sample() {
        let refused = || SampleFailure {
            life: Life::Up,
            reason: "too many clients".to_owned(),
        };
        for (what, in_recovery, failing, written, switch, superseded_by) in [
            ("wrote on", false, true, Some(300), 250, Some(Timeline(2))),
            (
                "up to there",
                false,
                true,
                Some(250),
                250,
                Some(Timeline(2)),
            ),
            ("not so far", false, true, Some(240), 250, None),
            ("nothing known", false, true, None, 250, None),
            ("left before", false, true, None, 200, Some(Timeline(2))),
            ("sampled again", false, false, Some(300), 250, None),
            ("a standby", true, true, Some(300), 250, None),
        ] {
            let mut view = view(in_recovery);
            let sample = view.sample.unwrap();
            if failing {
                view.failed(refused(), at(101));
            }
            if let Some(written) = written {
                view.wrote(&sample, Lsn(written));
            }
            view.learn(proof(2, switch));
            assert_eq!(view.superseded_by, superseded_by, "{what}");
        }
        // What was remembered before is judged as soon as enough is written; and a sample counts for more.
        let mut view = view(false);
        let sample = view.sample.unwrap();
        view.remember(proof(2, 250));
        view.failed(refused(), at(101));
        assert_eq!(view.superseded_by, None);
        view.wrote(&sample, Lsn(300));
        assert_eq!(view.superseded_by, Some(Timeline(2)));
        assert!(judge_primary(&view, at(102)).is_err());
        let again = Sample {
            at: at(103),
            position: Some(Lsn(240)),
            ..sample
        };
        view.saw(again);
        assert_eq!((view.superseded_by, view.written), (None, None));
        view.failed(refused(), at(104));
        view.wrote(&sample, Lsn(300));
        assert_eq!(view.written, None, "of a sample before");
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
            failing: Some((at(101), "no answer".into())),
            pgbouncer_at: Some(at(112)),
            ..view(false)
        };
        assert_eq!(judge_primary(&failing, at(114)), Ok(()));
        assert!(
            judge_primary(&failing, at(116))
                .unwrap_err()
                .contains("no answer")
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

    #[test]
    fn a_server_that_is_known_to_be_down_is_served_no_more_and_one_that_refuses_xdb_is() {
        let failure = |life| SampleFailure {
            life,
            reason: "seen".to_owned(),
        };
        let served = |failures: &[(i64, Life)], now| {
            let mut view = View {
                pgbouncer_at: Some(at(now)),
                ..view(false)
            };
            for (second, life) in failures {
                view.failed(failure(*life), at(*second));
            }
            judge_primary(&view, at(now)).is_ok()
        };
        for (failures, now, expected) in [
            (&[(101, Life::Unknown)][..], 115, true),
            (&[(101, Life::Unknown)], 116, false),
            (&[(101, Life::Down)], 101, false),
            // What was down may be something else when it is back: it must be sampled first.
            (&[(101, Life::Down), (102, Life::Unknown)], 103, false),
            (&[(101, Life::Down), (102, Life::Up)], 103, false),
            (&[(101, Life::Up), (400, Life::Up)], 401, true),
            (&[(101, Life::Up), (400, Life::Unknown)], 417, false),
        ] {
            assert_eq!(served(failures, now), expected, "{failures:?} at {now}");
        }
        // After the next sample all is as before.
        let mut back = view(false);
        back.failed(failure(Life::Down), at(101));
        back.saw(Sample {
            at: at(103),
            ..back.sample.unwrap()
        });
        assert_eq!(judge_primary(&back, at(104)), Ok(()));
    }

    #[test]
    fn a_role_that_pgbouncer_contradicts_is_not_held() {
        let mut refused = view(true);
        refused.failed(
            SampleFailure {
                life: Life::Up,
                reason: "too many clients".to_owned(),
            },
            at(101),
        );
        for (in_recovery, role) in [
            (None, Some(true)),
            (Some(true), Some(true)),
            (Some(false), None),
        ] {
            refused.saw_pgbouncer(PgBouncerState {
                at: at(101),
                condition: PgBouncerCondition::Serves,
                reason: None,
                in_recovery,
            });
            assert_eq!(refused.in_recovery(at(102)), role, "{in_recovery:?}");
        }
    }

    #[test]
    fn a_pgbouncer_that_lives_is_served_and_only_silence_is_held() {
        use PgBouncerCondition::{Gone, Lives, Serves, Silent};
        for (condition, last_lived, now, expected) in [
            (Serves, 101, 101, true),
            (Lives, 101, 101, true),
            (Silent, 100, 115, true),
            (Silent, 100, 116, false),
            (Gone, 100, 101, false),
        ] {
            let mut view = view(false);
            view.saw(Sample {
                at: at(now),
                ..view.sample.unwrap()
            });
            view.pgbouncer_at = Some(at(last_lived));
            view.saw_pgbouncer(PgBouncerState {
                at: at(now),
                condition,
                reason: Some("seen".to_owned()),
                in_recovery: None,
            });
            let judged = judge_primary(&view, at(now));
            assert_eq!(
                judged.is_ok(),
                expected,
                "{condition:?} at {now}: {judged:?}"
            );
        }
    }
}
