//! Verifications of a restored cluster: each file and query here ends in a verdict.
//!
//! Of the fetched files, of the end of the recovery, and of the restored data.

mod amcheck;
mod archive_end;
mod assertions;
mod checksums;
mod databases;
mod fetched;
mod files;
mod identity;
mod label;
mod needs;
mod object_findings;
mod recovered;
mod rows;
mod sql;
mod stop_record;
mod tables;
mod target;

pub use amcheck::check_amcheck;
pub use archive_end::judge_last_archived;
pub use assertions::{check_assertion, read_assertions};
pub use checksums::check_checksums;
pub use databases::{Database, judge_prepared, list_databases, roll_back};
pub use fetched::judge_fetched;
pub use needs::check_node;
pub use object_findings::{ObjectFindings, UncheckedObject};
pub use recovered::judge_recovered;
pub use rows::{RestoredRows, check_rows};
pub use sql::{SqlCheck, check_sql};
pub use tables::check_tables;
