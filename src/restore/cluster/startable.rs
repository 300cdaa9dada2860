//! Whether a server starts with the configuration that a backup brought.

use std::path::Path;
use std::time::Duration;

use super::backup_settings::{RestoredSettings, replace_settings_file};
use crate::postgres::ControlData;
use crate::process;
use crate::restore::RestoreError;
use crate::restore::recover::without_values;

/// Checks that a server starts with the backup's configuration, which may name files and directories that are missing here,
/// and replaces it otherwise. Returns the files that xdb had to write.
///
/// # Errors
/// When a file cannot be moved or written.
pub(crate) async fn startable(
    data: &Path,
    bin: &Path,
    back: &RestoredSettings,
    control: &ControlData,
) -> Result<Vec<String>, RestoreError> {
    const LIMIT: Duration = Duration::from_secs(30);
    let mut made: Vec<String> = back.made.iter().map(|name| (*name).to_owned()).collect();
    let mut why = None;
    for setting in ["data_directory", "hba_file"] {
        let mut command = process::command(bin.join("postgres"));
        command.arg("-D").arg(data).args(["-C", setting]);
        let finished = process::run(command, LIMIT).await?;
        let text = String::from_utf8_lossy(&finished.stdout);
        let path = Path::new(text.trim());
        why = match setting {
            _ if !finished.status.success() => Some(without_values(&finished.last_words())),
            "data_directory" if path != data => {
                Some(format!("its data_directory is {}", path.display()))
            }
            "hba_file" if !path.is_file() => {
                Some(format!("its hba_file {} is not here", path.display()))
            }
            _ => None,
        };
        if why.is_some() {
            break;
        }
    }
    if let Some(why) = why {
        let unusable = replace_settings_file(data, "postgresql.conf", control)?;
        made.push(format!(
            "postgresql.conf (that of the backup is now {unusable}: {why})"
        ));
    }
    Ok(made)
}
