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

pub(crate) use amcheck::check_amcheck;
pub(crate) use archive_end::judge_last_archived;
pub(crate) use assertions::{check_assertion, read_assertions};
pub(crate) use checksums::check_checksums;
pub(crate) use databases::{CopiedDatabase, judge_prepared, list_databases, roll_back};
pub(crate) use fetched::check_fetched;
pub(crate) use needs::check_node;
pub(crate) use object_findings::{ObjectFindings, UncheckedObject};
pub(crate) use recovered::judge_recovered;
pub(crate) use rows::{RestoredRows, check_rows};
pub(crate) use sql::{SqlCheck, check_sql};
pub(crate) use tables::check_tables;
