//! Verifications of a restored cluster.

mod amcheck;
mod assertions;
mod cause;
mod checksums;
mod databases;
mod files;
mod identity;
mod label;
mod look;
mod needs;
mod rows;
mod sql;
mod tables;

pub use amcheck::check_amcheck;
pub use assertions::{check_assertion, read_assertions};
pub use cause::{damage, is_corrupt, unasked};
pub use checksums::check_checksums;
pub use databases::{Database, Prepared, judge_prepared, open_databases, prepared, roll_back};
pub use files::{judge_files, restored_files};
pub use identity::{Recovered, judge_identity, judge_timeline, recovered};
pub use label::judge_label;
pub use look::{Look, NotLookedAt};
pub use needs::check_node;
pub use rows::{Counts, check_rows};
pub use sql::{SqlCheck, check_sql};
pub use tables::check_tables;
