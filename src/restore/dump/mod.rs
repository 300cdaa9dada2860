//! Dumps restored: one database for good (`restore_dump`), or a whole set into an empty scratch cluster, as a test.
//!
//! Roles first, then each database streamed from the bucket through `pg_restore`, then every table counted, and sequences,
//! extensions and large objects compared. A dump counts only when it was restored.
//!
//! - a dump test: `dump_test`, in an `empty_cluster` with the `extensions` that it needs, by `loader`; its result is `report`
//! - `xdb dump restore`: `restore_request` and `restore_plan` (`choice` of the set, `destination`, `selection`, `roles`, `refusal`),
//!   then `restore_run`: into a `temporary` database that gets its name last (`naming`); its result is `restored`
//! - both: `stream` into `pg_restore`, `toc` and `sql` (what is in a dump), `program_messages`, and the comparisons

mod choice;
mod comparison;
mod contents_comparison;
mod destination;
mod dump_test;
mod empty_cluster;
mod extensions;
mod loader;
mod naming;
mod program_messages;
mod refusal;
mod report;
mod restore_plan;
mod restore_request;
mod restore_run;
mod restored;
mod roles;
mod row_comparison;
mod selection;
mod sql;
mod stream;
mod temporary;
mod toc;

use crate::config::{Postgres, RestoreTest};
use crate::dump::Dumps;
pub(crate) use dump_test::run;
pub(crate) use report::DumpReport;
pub(crate) use restore_plan::plan_restore;
pub(crate) use restore_request::{DumpRestorePlan, DumpRestoreRequest};
pub(crate) use restore_run::restore_dump;
pub(crate) use restored::RestoredDump;
pub(crate) use selection::Part;
pub(crate) use temporary::{TemporaryName, clean_up};

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
