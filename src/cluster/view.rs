//! The node's view of itself: which role it has, sampled each second, and what it may serve. Judged purely.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PgBouncerCondition, PgBouncerState, SampleFailure};
use crate::model::{Lsn, ServerPosition, Supersession, Timeline, TimelineHistory, age};
use crate::postgres::Life;

/// What PostgreSQL said of itself at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerSample {
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
pub(crate) struct View {
    /// The last sample that could be taken.
    pub sample: Option<ServerSample>,
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
    /// Incremented when the role becomes known again after it was unknown.
    #[serde(skip)]
    run: u32,
    /// The peers were asked since the daemon began and the server came back. Before all were, a primary is not served.
    pub asked_peers: bool,
    /// Likewise the bucket, Redis, and this node's own disk.
    pub asked_archive: bool,
}

/// An answer is made from what is at most this old.
const FRESH: Duration = Duration::from_secs(5);
/// While PostgreSQL or PgBouncer is silent, its last known state is held this long: a busy second must not shut an
/// application out. What is known to be down is not held.
const HELD: Duration = Duration::from_secs(15);

/// One run of the server as far as it can be seen: it ends when the role becomes unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ServerRun(u32);

impl View {
    /// Takes in what the server said of itself.
    ///
    /// A server that was down may be a fenced primary that was started again: peers and archive are asked once more before
    /// it is served. After a stall only the peers are asked again: they answer at once or are down.
    pub(crate) fn record_sample(&mut self, sample: ServerSample) {
        if self.sample.is_some() && self.in_recovery(sample.at).is_none() {
            self.asked_peers = false;
            self.asked_archive &= !self.down;
            self.run += 1;
        }
        let another = |last: ServerSample| last.system_identifier != sample.system_identifier;
        if self.sample.is_some_and(another) {
            (self.proof, self.history) = (None, None);
        }
        (self.sample, self.failing) = (Some(sample), None);
        (self.down, self.answered_at, self.written) = (false, Some(sample.at), None);
        self.judge_proof();
    }

    /// What peers and archive are asked about; `None` while the server cannot be sampled. An answer that was obtained for
    /// another run does not count.
    pub(crate) fn current_run(&self) -> Option<ServerRun> {
        (self.sample.is_some() && self.failing.is_none()).then_some(ServerRun(self.run))
    }

    /// Takes in that it could not be sampled.
    pub(crate) fn failed(&mut self, failure: SampleFailure, now: Timestamp) {
        let since = self.failing.as_ref().map_or(now, |(since, _)| *since);
        self.failing = Some((since, failure.reason));
        match failure.life {
            Life::Down => self.down = true,
            Life::Up => self.answered_at = Some(now),
            Life::Unknown => {}
        }
    }

    /// Takes the role that a server had a moment ago, before this process began, where it cannot be sampled; `true` when that is news.
    ///
    /// It is held as any other role is: while the server answers, and for a short silence.
    pub(crate) fn recall(
        &mut self,
        sample: ServerSample,
        history: Option<TimelineHistory>,
    ) -> bool {
        if self.sample.is_some() || self.failing.is_none() {
            return false;
        }
        self.sample = Some(sample);
        self.answered_at = self.answered_at.max(Some(sample.at));
        self.descends(history);
        true
    }

    /// Takes in how far the server of `sample` has written since, by its `pg_wal`. Its role may be held for long, and another
    /// node may have been promoted from WAL behind the sample.
    pub(crate) fn wrote(&mut self, sample: &ServerSample, written: Lsn) {
        if self.failing.is_some() && self.sample.as_ref() == Some(sample) {
            self.written = self.written.max(Some(written));
            self.judge_proof();
        }
    }

    /// Takes in one look at PgBouncer.
    pub(crate) fn saw_pgbouncer(&mut self, state: PgBouncerState) {
        if state.lives() {
            self.pgbouncer_at = Some(state.at);
        }
        self.pgbouncer = Some(state);
    }

    /// Takes in the ancestors of the server's own timeline.
    pub(crate) fn descends(&mut self, history: Option<TimelineHistory>) {
        self.history = history;
        self.judge_proof();
    }

    /// Takes in the proof that another node was promoted; of several the highest counts. `true` when it is news.
    pub(crate) fn record_supersession(&mut self, proof: Supersession) -> bool {
        let known = self.proof.as_ref().map(|known| known.timeline);
        let own = self.position();
        let is_news = own.is_some_and(|own| proof.supersedes(&own)) && Some(proof.timeline) > known;
        if is_news {
            self.remember(proof);
        }
        is_news
    }

    /// Takes in what was proven before this daemon began; whether it supersedes this server shows when that is a primary.
    pub(crate) fn remember(&mut self, proof: Supersession) {
        let known = self.proof.as_ref().map(|known| known.timeline);
        if Some(proof.timeline) > known {
            self.proof = Some(proof);
            self.judge_proof();
        }
    }

    /// Takes the proof back that `is_wrong` names; `true` when there was one.
    pub(crate) fn unlearn(&mut self, is_wrong: impl FnOnce(&Supersession) -> bool) -> bool {
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
    pub(crate) fn position(&self) -> Option<ServerPosition> {
        let sample = self.sample.filter(|sample| !sample.in_recovery)?;
        Some(ServerPosition {
            system_identifier: sample.system_identifier,
            timeline: sample.timeline,
            lsn: sample.position.max(self.written)?,
            history: self.history.clone(),
        })
    }

    /// This node is the primary, and no other was promoted after it.
    pub(crate) fn leads(&self, now: Timestamp) -> bool {
        self.in_recovery(now) == Some(false) && self.superseded_by.is_none()
    }

    /// The same by what it last said of itself, however long ago.
    pub(crate) fn led_last(&self) -> bool {
        let sample = self.sample.as_ref();
        sample.is_some_and(|sample| !sample.in_recovery) && self.superseded_by.is_none()
    }

    /// The role that is served: `Some(true)` in recovery; `None` when it is not known, or too old.
    ///
    /// A server that answers and refuses xdb's own login keeps its last role, unless PgBouncer's login reads another.
    pub(crate) fn in_recovery(&self, now: Timestamp) -> Option<bool> {
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

/// Whether writes may come here.
///
/// # Errors
/// Why not, as a sentence.
pub(crate) fn judge_primary(view: &View, now: Timestamp) -> Result<(), String> {
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
pub(crate) fn judge_replica(view: &View, now: Timestamp) -> Result<(), String> {
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
#[path = "view_tests.rs"]
mod tests;
