//! The cluster as one node sees it: itself, its peers, the primary's positions, what the buckets hold; and the one verdict.
//!
//! - this node: `sample` reads the server, `view` says what may be served, `node` is what other nodes read, `pgbouncer_state`
//! - the others: `client` asks a daemon, `peers` keeps what was heard, `ring` knows when the primary passed a position
//! - the bucket: `evidence` and `archive_extent` are filled by the files of the same names in `daemon/`; `rpo` is the live RPO
//! - the verdict: `status` judges all of it by `judge`; `headline` is its first sentence, `line` a row of its table of nodes
//!
//! Nothing here opens S3 or Redis. A new part of the verdict goes into `judge`, and into the pinned fields of `status`.

mod archive_extent;
mod client;
mod evidence;
mod headline;
mod judge;
mod line;
mod node;
mod peers;
mod pgbouncer_state;
mod ring;
mod rpo;
mod sample;
mod sample_failure;
mod server_settings;
mod status;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod tests_headline;
#[cfg(test)]
mod tests_nodes;
mod view;

use jiff::SignedDuration;

pub(crate) use archive_extent::{ArchiveExtent, BackupMark, RestoreTested, Stretch, StretchKind};
pub(crate) use client::{ask_positions, ask_state, ask_status, ask_text, own_address};
pub(crate) use evidence::{
    ArchiveEnd, Evidence, NewestDump, ProvenRestore, Recoverable, RepositoryFaults, RestoreForecast,
};
pub(crate) use headline::{is_range, proven, since_proof, unread};
pub(crate) use judge::PAGED;
pub(crate) use line::Line;
pub(crate) use node::{NodeState, Standing};
pub(crate) use peers::{Peer, distinct, prove_by_peer, redis_claim, speaks_for_cluster};
pub(crate) use pgbouncer_state::{PgBouncerCondition, PgBouncerState};
pub(crate) use ring::{Lag, LsnRing};
pub(crate) use rpo::{LiveRpo, Loss, Objectives, Rpo, in_time};
pub(crate) use sample::ServerSampler;
pub(crate) use sample_failure::SampleFailure;
pub(crate) use server_settings::ServerSettings;
pub(crate) use status::{Marked, Status, archive_end, evaluate};
pub(crate) use view::{ServerRun, ServerSample, View, judge_primary, judge_replica};

use crate::model::{ForgottenTimeline, Silence, Timeline};

/// What a primary was told of newer timelines that does not supersede it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TimelinesSeen {
    /// In the archive: each with the reason why it proves nothing.
    pub doubtful: Vec<(Timeline, String)>,
    /// In Redis, a sentence each.
    pub claimed: Vec<String>,
    /// Those that a person had the cluster forget.
    pub forgotten: Vec<ForgottenTimeline>,
}

/// What a node knows beside itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Knowledge {
    pub peers: Vec<Peer>,
    /// Where the primary was when.
    pub positions: LsnRing,
    /// `None` before the buckets were first looked at.
    pub evidence: Option<Evidence>,
    /// This node's own alerts.
    pub alerts: Vec<Standing>,
    /// This node's copy of the cluster's silences.
    pub silences: Vec<Silence>,
    /// What this node measured while it led; `None` before it did.
    pub rpo: Option<Rpo>,
    /// By how much the clock of this node's server is ahead of this process's.
    pub server_ahead: SignedDuration,
    /// What is wanted of RPO and RTO.
    pub objectives: Objectives,
    pub timelines: TimelinesSeen,
    /// The versions and the settings of this node's servers; `None` before they were read.
    pub server: Option<ServerSettings>,
}
