//! What a node says of itself to its peers, and to Redis.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{LiveRpo, Rpo, ServerSettings, View};
use crate::model::{AlertKey, AlertMarks, AlertState, Severity, Silence};

/// The version of this JSON.
const VERSION: u32 = 1;

/// A node's own words: `GET /api/node`, and its key in Redis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeState {
    pub v: u32,
    pub hostname: String,
    /// xdb's.
    pub version: String,
    /// Where its daemon answers.
    pub listen: String,
    /// When it was said, by the node's own clock.
    pub at: Timestamp,
    /// The verdict on the cluster as this node sees it, in a word; `None` before it was judged.
    pub verdict: Option<String>,
    pub view: View,
    /// Its alerts that are raised.
    pub alerts: Vec<Standing>,
    /// Its copy of the cluster's silences: a peer learns of one while Redis is away.
    #[serde(default)]
    pub silences: Vec<Silence>,
    /// What it measured of commits that are not archived; `None` where it never led.
    #[serde(default)]
    pub rpo: Option<Rpo>,
    /// The cluster's RPO as this node shows it; in Redis only.
    #[serde(default)]
    pub live_rpo: Option<LiveRpo>,
    /// Seconds that a restore from now takes, as this node shows it; in Redis only.
    #[serde(default)]
    pub rto_secs: Option<f64>,
    /// The versions and the settings of its servers.
    #[serde(default)]
    pub server: Option<ServerSettings>,
}

/// An alert that is raised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// `{check}/{node or "cluster"}/{object}`.
    pub key: String,
    pub severity: Severity,
    pub since: Timestamp,
    pub reason: String,
    pub runbook: Option<String>,
    #[serde(flatten)]
    pub marks: AlertMarks,
}

impl NodeState {
    pub(crate) fn new(
        hostname: &str,
        listen: &str,
        view: View,
        alerts: Vec<Standing>,
        at: Timestamp,
    ) -> Self {
        Self {
            v: VERSION,
            hostname: hostname.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: listen.to_owned(),
            at,
            verdict: None,
            view,
            alerts,
            silences: Vec::new(),
            rpo: None,
            live_rpo: None,
            rto_secs: None,
            server: None,
        }
    }

    /// `None` for what another version wrote.
    pub(crate) fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json)
            .ok()
            .filter(|state: &Self| state.v == VERSION)
    }
}

impl Standing {
    /// Those of `alerts` that are raised.
    pub(crate) fn of(alerts: &[(AlertKey, AlertState)]) -> Vec<Self> {
        let raised = alerts.iter().filter(|(_, state)| state.raised_at.is_some());
        raised
            .map(|(key, state)| Self {
                key: key.to_string(),
                severity: state.severity,
                since: state.since,
                reason: state.reason.clone(),
                runbook: state.runbook.clone(),
                marks: state.notice.marks.clone(),
            })
            .collect()
    }
}
