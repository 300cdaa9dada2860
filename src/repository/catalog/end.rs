//! Whether the archive's last segment is its end: the bucket alone cannot tell, the primary's high-water mark does. Pure.

use super::Catalog;
use crate::model::WalSegment;
use crate::repository::HighWater;
use crate::storage::Location;

/// How far the archive is known to have come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Why it is not known.
    Unverified(String),
    /// The last segment that a leading primary knew to be archived.
    Marked(WalSegment),
}

impl Default for End {
    fn default() -> Self {
        Self::Unverified("the high-water mark was not looked at".to_owned())
    }
}

impl Catalog {
    /// Takes in the mark, or why there is none: it must have been read before the listing, or it could be ahead of that.
    ///
    /// One of another cluster or repository says nothing of this one.
    pub fn apply_high_water(&mut self, mark: Result<HighWater, String>, repository: &Location) {
        self.wal.end = match mark.and_then(|mark| self.end_of(&mark, repository)) {
            Ok(segment) => End::Marked(segment),
            Err(reason) => End::Unverified(reason),
        };
    }

    fn end_of(&self, mark: &HighWater, repository: &Location) -> Result<WalSegment, String> {
        if mark.repository != repository.to_string() {
            let theirs = &mark.repository;
            return Err(format!("the high-water mark is of {theirs}"));
        }
        let sentinels = self.backups.iter().filter_map(|b| b.sentinel.as_ref());
        let mut identifiers = sentinels.filter_map(|s| s.system_identifier).peekable();
        let theirs = mark.system_identifier;
        if identifiers.peek().is_some() && !identifiers.any(|own| own == theirs) {
            return Err(format!(
                "the high-water mark is of another cluster, with system identifier {theirs}"
            ));
        }
        WalSegment::parse(&mark.segment, self.wal.size).map_err(|error| error.to_string())
    }

    /// The segment of the mark, where there is one of this archive.
    pub fn marked_end(&self) -> Option<WalSegment> {
        match self.wal.end {
            End::Marked(segment) => Some(segment),
            End::Unverified(_) => None,
        }
    }

    /// The segment of the mark, where the bucket ends before it; `None` where it does not, or the timeline was left before.
    ///
    /// # Errors
    /// Why it is not known.
    pub fn lost_end(&self) -> Result<Option<WalSegment>, &str> {
        let mark = match &self.wal.end {
            End::Marked(mark) => *mark,
            End::Unverified(reason) => return Err(reason),
        };
        let histories = self.wal.histories.values().filter_map(|h| h.as_ref().ok());
        let mut left = histories.filter_map(|history| history.switched_from(mark.timeline));
        // The segment that holds the switch is archived under the newer name.
        let was_left = left.any(|switch| switch < mark.end(self.wal.size));
        let newest = self.wal.newest(mark.timeline);
        let is_there = newest.is_some_and(|newest| newest >= mark);
        Ok(Some(mark).filter(|_| !was_left && !is_there))
    }
}
