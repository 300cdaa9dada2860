//! The line of the primary's high-water mark, and which files belong to it.

use crate::model::{
    ArchiveFile, Lsn, SegmentSize, ServerPosition, TimelineHistory, WalSegment, judge_descent,
};
use crate::repository::ancestry::{self, Ancestry};
use crate::repository::{NewerTimeline, Relation};

/// How far the primary has archived, and along which line.
pub(super) struct ArchivedLine {
    pub ancestry: Ancestry,
    pub archived: Lsn,
    /// Where a newer timeline left that of the mark.
    pub superseded_at: Option<Lsn>,
    pub pruned_before: Option<String>,
    pub size: SegmentSize,
}

impl ArchivedLine {
    /// Whether the primary took `name` for archived, it counts, and retention has not deleted it.
    pub(super) fn wants(&self, name: &str) -> bool {
        match ArchiveFile::of(name) {
            Some(ArchiveFile::Segment) => self.wants_segment(name),
            Some(ArchiveFile::TimelineHistory) => self.history_of(name).is_some(),
            _ => false,
        }
    }

    fn wants_segment(&self, name: &str) -> bool {
        let Ok(segment) = WalSegment::parse(name, self.size) else {
            return false;
        };
        let end = segment.end(self.size);
        let is_superseded = segment.timeline == self.ancestry.timeline
            && self.superseded_at.is_some_and(|switch| end > switch);
        let is_pruned = self.pruned_before.as_deref().is_some_and(|it| name < it);
        self.ancestry.holds(segment, end) && end <= self.archived && !is_superseded && !is_pruned
    }

    /// What the history `name` must say; `None` where it is not one of this line.
    pub(super) fn history_of(&self, name: &str) -> Option<TimelineHistory> {
        let timeline = ancestry::timeline_of(name)?;
        let pruned = self.pruned_before.as_deref().and_then(|it| it.get(..8));
        let own = timeline == self.ancestry.timeline;
        let is_ancestor = self.ancestry.history.switched_from(timeline).is_some();
        if !(own || is_ancestor) || pruned.is_some_and(|it| &name[..8] < it) {
            return None;
        }
        let switches = self.ancestry.history.0.iter();
        let before = switches.filter(|switch| switch.timeline < timeline);
        Some(TimelineHistory(before.copied().collect()))
    }
}

/// Where the first of `newer` that can lead on from `own` left it. One that nothing ties to the cluster yet counts, too:
/// nothing is stored that may belong to a history that was left.
///
/// # Errors
/// When the history of one cannot be read.
pub(super) fn left_at(
    own: &ServerPosition,
    newer: &[NewerTimeline],
) -> Result<Option<Lsn>, String> {
    let counted = newer
        .iter()
        .filter(|it| !matches!(it.relation, Relation::Forgotten(_)));
    let mut left = None;
    for newer in counted {
        if newer.is_unread {
            return Err(format!(
                "the history of timeline {} cannot be read",
                newer.timeline
            ));
        }
        let history = newer.history.as_ref();
        let switch = history.map(|history| judge_descent(newer.timeline, history, own));
        left = switch.and_then(Result::ok).into_iter().chain(left).min();
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timeline;

    fn line() -> ArchivedLine {
        ArchivedLine {
            // Timeline 3 left 1 within segment 9; the primary has archived up to segment 12.
            ancestry: Ancestry {
                timeline: Timeline(3),
                history: "1\t0/90000A0\tr\n".parse().unwrap(),
            },
            archived: Lsn(0xD00_0000),
            superseded_at: None,
            pruned_before: Some("000000010000000000000004".to_owned()),
            size: SegmentSize::default(),
        }
    }

    #[test]
    fn only_what_the_primary_passed_on_its_own_line_is_wanted() {
        for (name, wanted) in [
            ("000000010000000000000003", false),
            ("000000010000000000000004", true),
            ("000000010000000000000008", true),
            ("000000010000000000000009", false),
            ("00000001000000000000000A", false),
            ("000000020000000000000005", false),
            ("000000030000000000000009", true),
            ("00000003000000000000000C", true),
            ("00000003000000000000000D", false),
            ("00000004000000000000000B", false),
            ("00000003.history", true),
            ("00000002.history", false),
            ("00000004.history", false),
            ("000000030000000000000009.partial", false),
            ("000000030000000000000009.00000028.backup", false),
        ] {
            assert_eq!(line().wants(name), wanted, "{name}");
        }
        // Timeline 4 left 3 within segment 11: the rest a superseded server wrote.
        let superseded = ArchivedLine {
            superseded_at: Some(Lsn(0xB00_0100)),
            ..line()
        };
        for (name, wanted) in [
            ("00000003000000000000000A", true),
            ("00000003000000000000000B", false),
            ("00000003000000000000000C", false),
        ] {
            assert_eq!(superseded.wants(name), wanted, "{name}");
        }
    }

    #[test]
    fn a_timeline_ends_where_any_newer_one_left_it() {
        let newer = |timeline: u32, history: &str, is_unread: bool| NewerTimeline {
            timeline: Timeline(timeline),
            history: Some(history.parse().unwrap()).filter(|_| !is_unread),
            is_unread,
            relation: Relation::Doubtful("nothing ties it".to_owned()),
        };
        let own = ServerPosition {
            system_identifier: 7,
            timeline: Timeline(2),
            lsn: Lsn(u64::MAX),
            history: Some("1\t0/50\tr\n".parse().unwrap()),
        };
        let (of_1, of_2) = ("1\t0/50\tr\n", "1\t0/50\tr\n2\t0/70\tr\n");
        for (what, newer, left) in [
            ("none", vec![], Ok(None)),
            (
                "not the next number",
                vec![newer(5, of_2, false)],
                Ok(Some(Lsn(0x70))),
            ),
            (
                "the first of two",
                vec![
                    newer(4, "1\t0/50\tr\n2\t0/90\tr\n", false),
                    newer(5, of_2, false),
                ],
                Ok(Some(Lsn(0x70))),
            ),
            ("of another one", vec![newer(3, of_1, false)], Ok(None)),
            ("absurd", vec![newer(4_000_000_000, of_2, false)], Ok(None)),
            ("unread", vec![newer(3, of_2, true)], Err(())),
        ] {
            assert_eq!(left_at(&own, &newer).map_err(|_| ()), left, "{what}");
        }
    }

    #[test]
    fn a_history_says_how_its_timeline_came_to_be() {
        let history = |name: &str| line().history_of(name).map(|it| it.0.len());
        assert_eq!(history("00000003.history"), Some(1));
        assert_eq!(history("00000002.history"), None);
    }
}
