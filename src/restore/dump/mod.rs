//! Dump restore tests: a dump set restored into an empty scratch cluster and compared with its manifest.
//!
//! Roles first, then each database streamed from the bucket through `pg_restore`, then every table counted, and sequences, extensions and large objects compared. A dump counts
//! only when it was restored.

mod comparison;
mod contents_comparison;
mod empty_cluster;
mod extensions;
mod loader;
mod program_messages;
mod report;
mod row_comparison;
mod run;

use crate::config::{Postgres, RestoreTest};
use crate::dump::Dumps;
pub(crate) use report::DumpReport;
pub(crate) use run::run;

/// What dump tests work with.
#[derive(Debug, Clone)]
pub(crate) struct DumpSetup {
    pub dumps: Dumps,
    pub settings: RestoreTest,
}

impl DumpSetup {
    /// The live server of this node, and the limits beside it.
    fn node(&self) -> (&Postgres, &RestoreTest) {
        (&self.dumps.postgres, &self.settings)
    }
}
