//! Whose a set, or an unfinished upload in its folder, is. Pure.

use std::collections::BTreeSet;

use super::seen::{Seen, SeenSet};
use crate::dump::{Listed, SetName, Status};

/// What proves that a set without a manifest is this cluster's.
#[derive(Debug)]
pub(super) struct Owners<'a> {
    seen: &'a Seen,
    /// Nodes with a finished set of this cluster, and this node; as sets' names spell them.
    own_nodes: BTreeSet<String>,
    /// Nodes with a set of another cluster.
    other_nodes: BTreeSet<String>,
}

impl<'a> Owners<'a> {
    pub(super) fn new(seen: &'a Seen) -> Self {
        let mut owners = Self {
            seen,
            own_nodes: BTreeSet::from([SetName::new(seen.now, &seen.hostname).node().to_owned()]),
            other_nodes: BTreeSet::new(),
        };
        for set in &seen.sets {
            let Some(of_manifest) = owners.why_not_by_manifest(&set.listed) else {
                continue;
            };
            let nodes = match of_manifest {
                None => &mut owners.own_nodes,
                Some(_) => &mut owners.other_nodes,
            };
            nodes.insert(set.name.node().to_owned());
        }
        owners
    }

    /// Why `set` is left alone; `None` where it is this cluster's.
    pub(super) fn why_not_own(&self, set: &SeenSet) -> Option<String> {
        match self.why_not_by_manifest(&set.listed) {
            Some(of_manifest) => of_manifest,
            None if set.listed.status == Status::Incomplete => self.why_not_by_name(&set.name),
            None => {
                let reason = set.listed.reason.as_deref().unwrap_or_default();
                Some(format!("{reason}; whose it is is unknown"))
            }
        }
    }

    /// The same of a set of which no more than the name is known.
    pub(super) fn why_not_by_name(&self, set: &SetName) -> Option<String> {
        let name = set.to_string();
        let known = self.seen.begun.as_ref().is_some_and(|it| it.set == name)
            || self.seen.deleting.contains(&name);
        let node = set.node();
        if known || self.own_nodes.contains(node) && !self.other_nodes.contains(node) {
            return None;
        }
        Some(match self.other_nodes.contains(node) {
            true => format!("unfinished, and another cluster dumps here from a node {node}"),
            false => format!("unfinished, and this cluster has no finished dump of a node {node}"),
        })
    }

    /// What the manifest says: nothing where there is none that can be read.
    fn why_not_by_manifest(&self, listed: &Listed) -> Option<Option<String>> {
        let manifest = listed.manifest.as_ref()?;
        let (of, own) = (manifest.system_identifier, self.seen.system_identifier);
        Some(if manifest.set != listed.set {
            Some(format!("its manifest is of the set {:?}", manifest.set))
        } else if manifest.cluster != self.seen.cluster {
            Some(format!("it is of the cluster {:?}", manifest.cluster))
        } else if of != own {
            Some(format!(
                "it is of another cluster: its system identifier is {of}, this server's {own}"
            ))
        } else {
            None
        })
    }
}
