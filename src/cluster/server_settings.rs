//! What of a node's servers must be alike on every node: after a failover the other one serves.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The versions and the settings of a node's servers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ServerSettings {
    /// By program, such as "PostgreSQL"; without those that could not be asked.
    pub versions: BTreeMap<String, String>,
    /// PostgreSQL's, by name: those that are not at their defaults. Of texts that may hold a secret only a short hash.
    pub settings: BTreeMap<String, String>,
}
