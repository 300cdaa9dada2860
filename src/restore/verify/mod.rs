//! Is what came back whole? Each question is one verification.

mod assertions;
mod files;
mod identity;
mod label;
mod rows;
mod sql;
mod tables;
mod tools;

pub use assertions::{check_assertion, read_assertions};
pub use files::{judge_files, restored_files};
pub use identity::{Recovered, judge_identity, judge_timeline, recovered};
pub use label::judge_label;
pub use rows::{Counts, check_rows};
pub use sql::{SqlCheck, check_sql};
pub use tables::check_tables;
pub use tools::{check_amcheck, check_checksums};
