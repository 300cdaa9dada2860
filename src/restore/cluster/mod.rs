//! `xdb restore`: a cluster that is kept, for the worst day and for "the table as of 10:42".

mod backup_settings;
mod completion;
#[cfg(test)]
mod fixtures;
mod layout;
mod outlook;
mod restore;
mod shell;
mod startable;
mod target_directory;
mod work_directory;

pub use backup_settings::HeldSetting;
pub use outlook::{RestoreRequest, outlook};
pub use restore::{RestoredCluster, finish_restore, restore_cluster};
pub use shell::shell;
