//! Dump restore tests: a dump set restored into an empty scratch cluster and compared with its manifest.
//!
//! Roles first, then each database streamed from the bucket through `pg_restore`, then every table counted. A dump counts
//! only when it was restored.

mod cluster;
mod compare;
mod extensions;
mod load;
mod program_messages;
mod report;
mod run;

pub use report::DumpReport;
pub use run::run;
