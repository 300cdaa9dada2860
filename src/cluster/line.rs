//! One line of the table of nodes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{Lsn, Timeline};

/// A node, as the table shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Line {
    pub hostname: String,
    /// `primary`, `replica` or `superseded`; `None` when it is not known.
    pub role: Option<String>,
    pub timeline: Option<Timeline>,
    /// Written by a primary, replayed by a standby.
    pub position: Option<Lsn>,
    /// A standby's, where the primary's positions are known.
    pub lag_bytes: Option<u64>,
    pub lag_secs: Option<f64>,
    /// The primary was ahead before the oldest position that is known: the lag is that or more.
    pub lag_at_least: bool,
    /// When it was last heard of.
    pub heard_at: Option<Timestamp>,
    /// Why its role is not known, or why it is not served.
    pub trouble: Option<String>,
}
