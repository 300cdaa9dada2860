//! Is what came back whole? Each question is one verification.

mod files;
mod identity;
mod sql;
mod tables;
mod tools;

pub use files::{judge_files, restored_files};
pub use identity::{Recovered, judge_identity, judge_timeline, recovered};
pub use sql::{SqlCheck, check_sql};
pub use tables::check_tables;
pub use tools::{check_amcheck, check_checksums};
