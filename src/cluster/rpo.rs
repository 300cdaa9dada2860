//! The live RPO: how old the oldest commit is that a restore from the bucket would not bring back. Pure.
//!
//! Only a node that leads can measure it: it has the WAL that is not archived yet. All times are by its clock. The other
//! nodes show what it said, and let the time since then count.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{ArchiveEnd, Evidence, Knowledge, View};
use crate::model::{Verdict, age};

/// What the leading node measured, at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rpo {
    /// By the leading node's clock.
    pub at: Timestamp,
    /// Where the archive ended then; `None` before it was known.
    pub archived: Option<ArchiveEnd>,
    pub loss: Loss,
}

/// What a loss of the leading node would cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub(crate) enum Loss {
    /// The bucket holds every commit.
    Nothing,
    /// The oldest commit that the bucket does not hold was made at that time.
    Since {
        commit_at: Timestamp,
    },
    /// The WAL could not be read: a commit that the bucket does not hold is no older than that.
    AtMostSince {
        at: Timestamp,
        reason: String,
    },
    Unknown {
        reason: String,
    },
}

/// What is wanted; from `archive.rpo_objective` and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Objectives {
    /// From this RPO on it is a warning.
    pub rpo_warning: Option<Duration>,
    pub rpo_critical: Option<Duration>,
    /// A restore that is expected to take longer is a warning.
    pub rto: Option<Duration>,
}

/// The RPO as it is shown: `rpo` of `/api/status` and of a node's key in Redis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LiveRpo {
    /// `None` where it is not known.
    pub secs: Option<f64>,
    /// `secs` is an upper bound.
    pub at_most: bool,
    /// Commit time of the oldest commit that the bucket does not hold; `None` where it holds all.
    pub oldest_commit_at: Option<Timestamp>,
    /// When it was measured, by the primary's clock.
    pub measured_at: Option<Timestamp>,
    /// Why it is not known, not exact, or not of now.
    pub reason: Option<String>,
    pub warning_secs: Option<f64>,
    pub critical_secs: Option<f64>,
}

/// A measurement that is older is not of now.
const STALE: SignedDuration = SignedDuration::from_secs(60);
/// A measurement that is older does not say that there is no loss: commits may have come since.
const FRESH: SignedDuration = SignedDuration::from_secs(5);

impl Rpo {
    /// As it is at `now` of the clock that it was measured by.
    pub(crate) fn shown(&self, now: Timestamp, objectives: &Objectives) -> LiveRpo {
        let age = |at: Timestamp| Some(age(at, now).as_secs_f64());
        let (secs, at_most, oldest, reason) = match &self.loss {
            Loss::Nothing => (Some(0.0), false, None, None),
            // A loss is never shown as none, however young it is.
            Loss::Since { commit_at } => {
                let secs = age(*commit_at).map(|secs| secs.max(0.1));
                (secs, false, Some(*commit_at), None)
            }
            Loss::AtMostSince { at, reason } => (age(*at), true, None, Some(reason.clone())),
            Loss::Unknown { reason } => (None, false, None, Some(reason.clone())),
        };
        LiveRpo {
            secs: secs.map(|secs| (secs * 10.0).round() / 10.0),
            at_most,
            oldest_commit_at: oldest,
            measured_at: Some(self.at),
            reason,
            ..LiveRpo::unknown("", objectives)
        }
    }
}

impl LiveRpo {
    pub(crate) fn unknown(reason: &str, objectives: &Objectives) -> Self {
        let secs = |limit: Option<Duration>| limit.map(|limit| limit.as_secs_f64());
        Self {
            secs: None,
            at_most: false,
            oldest_commit_at: None,
            measured_at: None,
            reason: Some(reason.to_owned()),
            warning_secs: secs(objectives.rpo_warning),
            critical_secs: secs(objectives.rpo_critical),
        }
    }
}

/// The RPO of the cluster by what this node knows: its own measurement where it leads, else that of the node that leads or led last.
pub(super) fn live_rpo(view: &View, known: &Knowledge, now: Timestamp) -> LiveRpo {
    let objectives = &known.objectives;
    let unknown = |reason: &str| LiveRpo::unknown(reason, objectives);
    if view.led_last() {
        let Some(rpo) = &known.rpo else {
            return unknown("it has not been measured yet");
        };
        return held(rpo, now, objectives, "");
    }
    let led = known
        .peers
        .iter()
        .filter_map(|peer| peer.last_answer.as_ref())
        .filter(|(_, state)| state.view.led_last())
        // The last one that was heard: a former primary may still be listed.
        .max_by_key(|(heard_at, state)| (state.view.sample.map(|it| it.timeline), *heard_at));
    let Some((heard_at, state)) = led else {
        return unknown("no primary is known");
    };
    let Some(rpo) = &state.rpo else {
        return unknown(&format!("{} has not measured it yet", state.hostname));
    };
    // By the primary's own clock, and then the time since it was heard.
    let since_heard = age(*heard_at, now);
    let their_now = state.at.checked_add(since_heard).unwrap_or(state.at);
    held(rpo, their_now, objectives, &state.hostname)
}

/// A measurement of a while ago: a known loss ages on. Where there was none, a loss is at most as old as the measurement,
/// and after a minute the RPO is unknown.
fn held(measured: &Rpo, now: Timestamp, objectives: &Objectives, node: &str) -> LiveRpo {
    let mut rpo = measured.shown(now, objectives);
    let age = now.duration_since(measured.at);
    let bounded = measured.loss == Loss::Nothing && age > FRESH;
    if age <= STALE && !bounded {
        return rpo;
    }
    let by = if node.is_empty() {
        String::new()
    } else {
        format!(" by {node}")
    };
    let reason = format!("last measured{by} {} s ago", age.as_secs());
    if age > STALE && rpo.oldest_commit_at.is_none() {
        (rpo.secs, rpo.at_most) = (None, false);
    } else if bounded {
        let secs = (age.as_secs_f64() * 10.0).round() / 10.0;
        (rpo.secs, rpo.at_most) = (Some(secs), true);
    }
    rpo.reason = Some(reason);
    rpo
}

/// `None` where another finding says it all: nothing can be restored.
pub(super) fn judge_rpo(rpo: &LiveRpo, evidence: Option<&Evidence>) -> Option<Verdict> {
    let evidence = evidence?;
    let backup = match (&evidence.base_backup, &evidence.base_backup_error) {
        (None, None) => return None,
        (Some(backup), _) if backup.unusable.is_some() => return None,
        (backup, _) => backup.as_ref(),
    };
    let reason = rpo.reason.as_deref().unwrap_or_default();
    let Some(secs) = rpo.secs else {
        return Some(Verdict::Unknown(format!("the RPO is unknown: {reason}")));
    };
    let over = |limit: Option<f64>| limit.filter(|limit| secs >= *limit);
    let (critical, warning) = (over(rpo.critical_secs), over(rpo.warning_secs));
    let Some(limit) = critical.or(warning) else {
        return Some(Verdict::Ok);
    };
    let gap = backup.and_then(|backup| backup.gap.as_ref());
    if rpo.at_most && gap.is_none() {
        return Some(Verdict::Unknown(format!(
            "the RPO is at most {}: {reason}",
            in_time(secs)
        )));
    }
    let mut words = format!(
        "committed data of the last {} is not in the archive (limit {})",
        in_time(secs),
        in_time(limit)
    );
    if let Some(error) = &evidence.base_backup_error {
        words = format!("{words}: {error}");
    }
    let acknowledged = backup.is_some_and(|backup| backup.acknowledged.is_some());
    Some(if critical.is_some() && !acknowledged {
        Verdict::Critical(words)
    } else {
        Verdict::Warning(words)
    })
}

/// As "3.1 s", "45 s", "12 min" or "5 h".
pub(crate) fn in_time(secs: f64) -> String {
    match secs {
        ..10.0 => format!("{secs:.1} s"),
        ..120.0 => format!("{secs:.0} s"),
        ..7200.0 => format!("{:.0} min", secs / 60.0),
        _ => format!("{:.0} h", secs / 3600.0),
    }
}
