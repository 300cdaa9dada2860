//! Whether a newer timeline supersedes a server. Pure.
//!
//! Two things make a proof: the timeline's history left the server's own timeline at or before the server's position, and
//! something ties the timeline to the server's system identifier. A name in a bucket or in Redis is neither.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Lsn, Timeline, TimelineHistory};

/// Each promotion takes the next free number, so a timeline this far above the server's own is a mistake or an attack.
const HIGHEST_STEP: u32 = 1000;

/// Where a server stands in its cluster's WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPosition {
    pub system_identifier: u64,
    pub timeline: Timeline,
    /// Written by a primary; a lower bound is enough.
    pub lsn: Lsn,
    /// The ancestors of `timeline`; `None` where they are not known.
    pub history: Option<TimelineHistory>,
}

/// Proof that another node was promoted, and that a server which is still on an older timeline must not lead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supersession {
    pub system_identifier: u64,
    pub timeline: Timeline,
    pub history: TimelineHistory,
    /// What ties the timeline to the system identifier: a segment, or a peer that runs on it.
    pub proven_by: String,
    pub at: Timestamp,
}

/// A timeline that an operator declared irrelevant to the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForgottenTimeline {
    pub v: u32,
    pub system_identifier: u64,
    pub timeline: Timeline,
    /// The history that was forgotten: a later promotion to the same number has another one. `None` where none was known.
    pub history: Option<TimelineHistory>,
    pub by: String,
    pub why: String,
    pub at: Timestamp,
}

impl Supersession {
    /// Whether a primary at `own` must not lead.
    pub fn supersedes(&self, own: &ServerPosition) -> bool {
        self.system_identifier == own.system_identifier
            && judge_descent(self.timeline, &self.history, own).is_ok()
    }
}

impl ForgottenTimeline {
    /// Whether this is about the timeline with this history.
    pub fn covers(
        &self,
        system_identifier: u64,
        timeline: Timeline,
        history: Option<&TimelineHistory>,
    ) -> bool {
        let same_history = match (&self.history, history) {
            (Some(known), Some(history)) => known == history,
            // A later promotion to the number has a history: it is not what was forgotten.
            (None, Some(_)) => false,
            (_, None) => true,
        };
        (self.system_identifier, self.timeline) == (system_identifier, timeline) && same_history
    }

    /// Whether `proof` is about the timeline that was forgotten.
    pub fn voids(&self, proof: &Supersession) -> bool {
        let history = Some(&proof.history);
        self.covers(proof.system_identifier, proof.timeline, history)
    }
}

/// Every timeline that an operator had a cluster forget, as far as the records can be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForgottenTimelines {
    pub known: Vec<ForgottenTimeline>,
    /// Kept, and damaged: why, by timeline.
    pub unreadable: Vec<(Timeline, String)>,
}

impl ForgottenTimelines {
    /// Adds those of `more` that are not known yet.
    pub fn add(&mut self, more: Vec<ForgottenTimeline>) {
        for one in more {
            if !self.known.contains(&one) {
                self.known.push(one);
            }
        }
    }

    /// The record that the timeline with this history was forgotten; `None` where it was not.
    ///
    /// # Errors
    /// When the record of that number is damaged: it may be about this history.
    pub fn find(
        &self,
        system_identifier: u64,
        timeline: Timeline,
        history: Option<&TimelineHistory>,
    ) -> Result<Option<&ForgottenTimeline>, String> {
        let covers = |one: &&ForgottenTimeline| one.covers(system_identifier, timeline, history);
        let found = self.known.iter().find(covers);
        let damaged = self.unreadable.iter().find(|(of, _)| *of == timeline);
        match (found, damaged) {
            (None, Some((_, reason))) => Err(format!(
                "a person may have had it forgotten, but that record is damaged: {reason}"
            )),
            (found, _) => Ok(found),
        }
    }
}

/// Where `timeline` left the timeline of `own`.
///
/// # Errors
/// Why it does not descend from what the server at `own` has written.
pub fn judge_descent(
    timeline: Timeline,
    history: &TimelineHistory,
    own: &ServerPosition,
) -> Result<Lsn, String> {
    judge_number(timeline, own.timeline)?;
    let ordered = history.0.windows(2).all(|pair| pair[0].at <= pair[1].at);
    if !ordered || history.0.iter().any(|switch| switch.timeline >= timeline) {
        return Err(format!("the history of timeline {timeline} is impossible"));
    }
    let shared = own.history.iter().flat_map(|history| &history.0);
    for ancestor in shared {
        if history.switched_from(ancestor.timeline) != Some(ancestor.at) {
            return Err(format!(
                "its history and this server's differ at timeline {}",
                ancestor.timeline
            ));
        }
    }
    match history.switched_from(own.timeline) {
        None => Err(format!(
            "its history does not contain timeline {}, which this server is on",
            own.timeline
        )),
        Some(switch) if switch > own.lsn => Err(format!(
            "it left timeline {} at {switch}, which this server, at {}, has not reached; a server restored from an old copy is superseded once it writes past that",
            own.timeline, own.lsn
        )),
        Some(switch) => Ok(switch),
    }
}

/// # Errors
/// Why promotions cannot have led from `own` to `timeline`.
pub fn judge_number(timeline: Timeline, own: Timeline) -> Result<(), String> {
    match timeline.0.checked_sub(own.0) {
        None | Some(0) => Err(format!(
            "timeline {timeline} is not newer than this server's {own}"
        )),
        Some(step) if step > HIGHEST_STEP => Err(format!(
            "timeline {timeline} is implausible: this server is on timeline {own}"
        )),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(timeline: u32, lsn: u64, history: Option<&str>) -> ServerPosition {
        ServerPosition {
            system_identifier: 7,
            timeline: Timeline(timeline),
            lsn: Lsn(lsn),
            history: history.map(|text| text.parse().unwrap()),
        }
    }

    #[test]
    fn only_a_history_that_left_our_timeline_at_or_before_our_position_fits() {
        let (one, two) = ("1\t0/5000000\tr\n", "1\t0/5000000\tr\n2\t0/7000000\tr\n");
        for (what, timeline, history, own, fits) in [
            ("left before", 2, one, own(1, 0x600_0000, Some("")), true),
            ("left right here", 2, one, own(1, 0x500_0000, None), true),
            ("left later", 2, one, own(1, 0x4ff_ffff, None), false),
            ("skipped one", 3, two, own(1, 0x500_0000, None), true),
            (
                "from our second timeline",
                3,
                two,
                own(2, 0x700_0000, Some(one)),
                true,
            ),
            (
                "another second timeline",
                3,
                two,
                own(2, 0x700_0000, Some("1\t0/4000000\tr\n")),
                false,
            ),
            (
                "not ours",
                3,
                "2\t0/100\tr\n",
                own(1, 0x700_0000, None),
                false,
            ),
            ("no ancestors", 2, "", own(1, 0x700_0000, None), false),
            ("our own", 2, one, own(2, 0x700_0000, None), false),
            ("older", 1, "", own(2, 0x700_0000, None), false),
            (
                "an ancestor above itself",
                2,
                two,
                own(1, 0x700_0000, None),
                false,
            ),
            (
                "backwards",
                3,
                "1\t0/5000000\tr\n2\t0/3000000\tr\n",
                own(1, 0x700_0000, None),
                false,
            ),
            (
                "absurd",
                4_000_000_000,
                one,
                own(1, 0x600_0000, None),
                false,
            ),
            (
                "the last number",
                u32::MAX,
                one,
                own(u32::MAX, 0x600_0000, None),
                false,
            ),
        ] {
            let judged = judge_descent(Timeline(timeline), &history.parse().unwrap(), &own);
            assert_eq!(judged.is_ok(), fits, "{what}: {judged:?}");
        }
    }

    #[test]
    fn a_proof_of_another_cluster_supersedes_nothing() {
        let proof = |system_identifier| Supersession {
            system_identifier,
            timeline: Timeline(2),
            history: "1\t0/5000000\tr\n".parse().unwrap(),
            proven_by: "000000020000000000000005".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        };
        let own = own(1, 0x600_0000, None);
        assert!(proof(7).supersedes(&own));
        assert!(!proof(8).supersedes(&own));
    }

    #[test]
    fn a_forgotten_timeline_is_the_one_with_that_history() {
        let history = |text: &str| text.parse::<TimelineHistory>().unwrap();
        let forgotten = |history| ForgottenTimeline {
            v: 1,
            system_identifier: 7,
            timeline: Timeline(2),
            history,
            by: "anna".to_owned(),
            why: "a clone".to_owned(),
            at: Timestamp::UNIX_EPOCH,
        };
        let (one, other) = (history("1\t0/5000000\tr\n"), history("1\t0/6000000\tr\n"));
        let known = forgotten(Some(one.clone()));
        assert!(known.covers(7, Timeline(2), Some(&one)));
        assert!(known.covers(7, Timeline(2), None));
        assert!(!known.covers(7, Timeline(2), Some(&other)));
        assert!(!known.covers(7, Timeline(3), Some(&one)));
        assert!(!known.covers(8, Timeline(2), Some(&one)));
        // Declared before the timeline had a history: a promotion to that number is another one.
        assert!(!forgotten(None).covers(7, Timeline(2), Some(&other)));
        assert!(forgotten(None).covers(7, Timeline(2), None));

        let mut all = ForgottenTimelines {
            known: vec![known.clone()],
            unreadable: vec![
                (Timeline(2), "cut".to_owned()),
                (Timeline(3), "cut".to_owned()),
            ],
        };
        all.add(vec![known.clone()]);
        assert_eq!(all.known.len(), 1);
        assert_eq!(all.find(7, Timeline(2), Some(&one)), Ok(Some(&known)));
        assert!(all.find(7, Timeline(2), Some(&other)).is_err());
        assert!(all.find(7, Timeline(3), Some(&one)).is_err());
        assert_eq!(all.find(7, Timeline(4), Some(&one)), Ok(None));
    }
}
