//! Which version of each small object was read.

use std::collections::BTreeMap;

use crate::storage::Object;

/// Small objects read at once.
pub(crate) const AT_ONCE: usize = 8;

/// The sentinels and histories that were read, by name, each as it was then.
pub(crate) type ObjectVersions = BTreeMap<String, String>;

pub(crate) fn tag_of(object: &Object) -> String {
    format!("{} {} {}", object.tag, object.size, object.last_modified)
}
