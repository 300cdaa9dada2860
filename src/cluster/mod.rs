//! The cluster as one node sees it: itself, its peers, the primary's positions, what the buckets hold; and the one verdict.

mod ask;
mod evidence;
mod judge;
mod node;
mod peers;
mod ring;
mod sample;
mod status;
#[cfg(test)]
mod tests;
mod view;

pub use ask::{AskError, ask_positions, ask_state, ask_status, own_address};
pub use evidence::{Doubts, Dumped, Evidence, Proof, Recoverable};
pub use judge::{PAGED, ago};
pub use node::{NodeState, Standing};
pub use peers::{Peer, speaks_for_cluster};
pub use ring::{Lag, LsnRing};
pub use sample::Sampler;
pub use status::{Line, Status, evaluate};
pub use view::{Sample, View, judge_primary, judge_replica};

/// What a node knows beside itself.
#[derive(Debug, Clone, Default)]
pub struct Knowledge {
    pub peers: Vec<Peer>,
    /// Where the primary was when.
    pub positions: LsnRing,
    /// `None` before the buckets were first looked at.
    pub evidence: Option<Evidence>,
    /// This node's own alerts.
    pub alerts: Vec<Standing>,
}
