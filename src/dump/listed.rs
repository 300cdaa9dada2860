//! One set as it is listed: its status, its newest test, and its objects.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{DumpSet, StoredObject};

/// One set of the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Listed {
    pub set: String,
    pub status: Status,
    /// Why it is not complete.
    pub reason: Option<String>,
    pub started_at: Timestamp,
    /// It holds some of the databases. It does not count as a dump of the job, and hides no full set.
    pub partial: bool,
    /// What it takes in the bucket.
    pub stored_bytes: u64,
    /// The newest dump test that judged it, on whatever node.
    pub tested: Option<SetTest>,
    /// `None` where it is missing or cannot be read.
    pub manifest: Option<DumpSet>,
    /// The objects that are there, by key: bytes.
    #[serde(skip)]
    pub stored: BTreeMap<String, u64>,
}

impl Listed {
    /// Whether it is of `cluster`, or its manifest does not say.
    pub(crate) fn may_be_of(&self, cluster: &str) -> bool {
        let manifest = self.manifest.as_ref();
        manifest.is_none_or(|manifest| manifest.cluster == cluster)
    }

    /// What the listing shows of one object that the manifest names: the reason where it is missing or has another size.
    pub(crate) fn damage_of(&self, named: &StoredObject) -> Option<String> {
        difference(&self.stored, named)
    }
}

/// The newest set of every database of `cluster` that is finished, whole or not: a damaged one must not hide behind an older one.
pub(crate) fn newest_full<'a>(listed: &'a [Listed], cluster: &str) -> Option<&'a Listed> {
    let is_full = |set: &&Listed| set.status != Status::Incomplete && !set.partial;
    let mut sets = listed.iter().filter(|set| set.may_be_of(cluster));
    sets.rfind(is_full)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// The manifest is there, and so is all that it names, in its size.
    Complete,
    /// The same, and its newest dump test failed.
    Disproved,
    /// No manifest: being written, or never finished.
    Incomplete,
    /// The objects are not what the manifest says.
    Damaged,
    /// The manifest is of a layout that this xdb does not know.
    Unknown,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Disproved => "disproved",
            Self::Incomplete => "incomplete",
            Self::Damaged => "damaged",
            Self::Unknown => "unknown",
        }
    }
}

/// The newest dump test that judged a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SetTest {
    /// When it ended.
    pub at: Timestamp,
    pub node: String,
    pub passed: bool,
    /// Why it did not pass.
    pub reason: Option<String>,
}

/// Why what is `stored` is not the object that a manifest names.
pub(super) fn difference(stored: &BTreeMap<String, u64>, named: &StoredObject) -> Option<String> {
    let (key, bytes) = (&named.key, named.bytes);
    match stored.get(key) {
        None => Some(format!("{key} is missing")),
        Some(size) if *size != bytes => {
            Some(format!("{key} has {size} bytes, its manifest says {bytes}"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
impl Listed {
    /// A set without a manifest, of any status.
    pub(crate) fn sample(set: &str, status: Status) -> Self {
        Self {
            set: set.to_owned(),
            status,
            reason: None,
            started_at: super::SetName::parse(set).expect("a set's name").begun_at(),
            partial: false,
            stored_bytes: 10,
            tested: None,
            manifest: None,
            stored: BTreeMap::new(),
        }
    }
}
