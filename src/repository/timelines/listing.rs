//! Lists the newer timelines, and what stands first of each.

use std::ops::ControlFlow;

use super::Timelines;
use crate::model::Timeline;
use crate::repository::RepositoryError;
use crate::repository::catalog::archived_name;
use crate::storage::Object;

/// Of each timeline its history and some segments: they stand first.
const LISTED: usize = 4;
/// Objects of one page of a listing.
const PAGE: usize = 1000;

/// What a timeline begins with in `wal_005/`.
#[derive(Debug)]
pub(super) struct ListedTimeline {
    pub timeline: Timeline,
    pub objects: Vec<Object>,
}

/// Sorts a listing by timelines.
#[derive(Debug)]
struct Listing {
    found: Vec<ListedTimeline>,
    most: usize,
    /// Of the page.
    seen: usize,
    is_broken_off: bool,
}

impl Listing {
    /// Breaks off where it has enough, or where a timeline that is longer than a page is better skipped.
    fn take(&mut self, timeline: Timeline, object: Object) -> ControlFlow<()> {
        self.seen += 1;
        let is_full = self.found.len() == self.most;
        let last = self.found.last_mut();
        match last.filter(|last| last.timeline == timeline) {
            Some(last) if last.objects.len() < LISTED => last.objects.push(object),
            Some(_) if !is_full && self.seen < PAGE => {}
            None if !is_full => self.found.push(ListedTimeline {
                timeline,
                objects: vec![object],
            }),
            _ => {
                self.is_broken_off = true;
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

impl Timelines {
    pub(super) async fn listed(
        &self,
        timeline: Timeline,
    ) -> Result<Option<ListedTimeline>, RepositoryError> {
        let before = Timeline(timeline.0.saturating_sub(1));
        let listed = self.list(before, 1).await?.pop();
        Ok(listed.filter(|listed| listed.timeline == timeline))
    }

    /// At most `most` timelines above `above`.
    pub(super) async fn list(
        &self,
        above: Timeline,
        most: usize,
    ) -> Result<Vec<ListedTimeline>, RepositoryError> {
        let prefix = self.repository.key("wal_005/");
        let mut listing = Listing {
            found: Vec::new(),
            most,
            seen: 0,
            is_broken_off: false,
        };
        let mut last = above;
        loop {
            // Sorts behind all that belongs to the timeline.
            let after = format!("{prefix}{:08X}~", last.0);
            (listing.seen, listing.is_broken_off) = (0, false);
            let each = |object: Object| {
                let name = object.key.strip_prefix(&prefix).and_then(archived_name);
                match name.and_then(|(name, _)| timeline_in(name)) {
                    Some(timeline) => listing.take(timeline, object),
                    None => ControlFlow::Continue(()),
                }
            };
            self.repository
                .bucket
                .list_each(&prefix, Some(after), each)
                .await?;
            let reached = listing.found.last().map_or(last, |found| found.timeline);
            if !listing.is_broken_off || listing.found.len() == most || reached <= last {
                return Ok(listing.found);
            }
            last = reached;
        }
    }
}

/// The timeline that begins the name of a WAL file.
pub(crate) fn timeline_in(name: &str) -> Option<Timeline> {
    let digits = name.get(..8)?;
    u32::from_str_radix(digits, 16).ok().map(Timeline)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::repository::timelines::MOST;

    #[test]
    fn a_listing_takes_the_first_objects_of_each_timeline() {
        let listing = |most, counts: &[(u32, usize)]| {
            let mut listing = Listing {
                found: Vec::new(),
                most,
                seen: 0,
                is_broken_off: false,
            };
            'all: for (timeline, count) in counts {
                for number in 0..*count {
                    let object = Object {
                        key: format!("{timeline:08X}{number:016X}"),
                        size: 1,
                        last_modified: Timestamp::UNIX_EPOCH,
                        tag: String::new(),
                    };
                    if listing.take(Timeline(*timeline), object).is_break() {
                        break 'all;
                    }
                }
            }
            let found = listing.found.iter();
            let found: Vec<_> = found.map(|it| (it.timeline.0, it.objects.len())).collect();
            (found, listing.is_broken_off)
        };
        let few = listing(MOST, &[(2, 1), (3, 9), (4, 2)]);
        assert_eq!(few, (vec![(2, 1), (3, 4), (4, 2)], false));
        assert_eq!(listing(1, &[(2, 1), (3, 1)]), (vec![(2, 1)], true));
        assert_eq!(listing(1, &[(2, 9)]), (vec![(2, 4)], true));
        // Skipped, not read to its end.
        let long = listing(MOST, &[(2, 5000), (3, 1)]);
        assert_eq!(long, (vec![(2, 4)], true));
    }
}
