//! The file that makes a directory a restore test's own: without it xdb removes nothing.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::Timeline;
use crate::repository::catalog::Tablespace;

/// Its name in the directory.
pub(crate) const MARKER_FILE: &str = "xdb-restore-test.json";

/// The restore that works, or worked, in a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Marker {
    pub v: u32,
    pub pid: u32,
    pub since: Timestamp,
    /// `None` until the backup is chosen.
    pub backup: Option<String>,
    /// Of a restore for good: the tablespaces that come with the backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tablespaces: Vec<Tablespace>,
    /// Of a restore for good: the timeline that is recovered; the promotion begins a higher one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// Of a restore for good: what is wrong with the cluster that recovered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Of a restore for good: why it is unknown where the recovery ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// The test is over and its copy is kept: no other test removes it.
    pub kept: bool,
}

impl Marker {
    /// Of this process.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            v: 1,
            pid: std::process::id(),
            since: now,
            backup: None,
            tablespaces: Vec::new(),
            timeline: None,
            reason: None,
            unknown: None,
            kept: false,
        }
    }

    /// The marker of `directory`; `None` where it has none that can be read.
    pub(crate) fn of(directory: &Path) -> Option<Self> {
        let text = fs::read(directory.join(MARKER_FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Puts it into `directory`, in the place of an older one.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join(format!("{MARKER_FILE}.new"));
        fs::write(&new, serde_json::to_vec(self)?)?;
        // A rename replaces the file as a whole.
        fs::rename(new, directory.join(MARKER_FILE))
    }
}
