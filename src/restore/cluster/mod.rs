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

pub(crate) use backup_settings::HeldSetting;
pub(crate) use outlook::{RestoreRequest, check_target, outlook};
pub(crate) use restore::{RestoredCluster, finish_restore, restore_cluster};
pub(crate) use shell::shell;
