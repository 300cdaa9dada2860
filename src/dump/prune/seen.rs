//! What a prune sees, of which its plan is made.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use crate::dump::{Listed, SetName};
use crate::repository::BegunDump;
use crate::storage::{Location, Object, UnfinishedUpload};

/// What is unfinished may be at work for so long.
pub(super) const AT_WORK: SignedDuration = SignedDuration::from_hours(24);

/// What a plan is made from.
#[derive(Debug)]
pub(super) struct Seen {
    pub now: Timestamp,
    pub location: Location,
    /// Of this node.
    pub cluster: String,
    pub system_identifier: u64,
    pub hostname: String,
    /// Oldest first.
    pub sets: Vec<SeenSet>,
    /// Objects that belong to no set.
    pub others: Vec<Object>,
    pub uploads: Vec<UnfinishedUpload>,
    /// The last dump of every database, whatever became of it.
    pub begun: Option<BegunDump>,
    /// Sets whose deletion a stopped run had begun.
    pub deleting: BTreeSet<String>,
}

#[derive(Debug)]
pub(super) struct SeenSet {
    pub name: SetName,
    pub listed: Listed,
    pub objects: Vec<Object>,
}

impl SeenSet {
    /// By S3's clock, and by the clock of the node that made it.
    pub(super) fn is_younger_than_a_day(&self, now: Timestamp) -> bool {
        let times = self.objects.iter().map(|object| object.last_modified);
        let newest = times.chain([self.name.begun_at()]).max();
        newest.is_some_and(|newest| now.duration_since(newest) < AT_WORK)
    }
}
