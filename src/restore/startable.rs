//! Whether a server starts with the configuration that a backup brought.

use std::path::Path;
use std::time::Duration;

use super::RestoreError;
use super::brought::{self, PutBack};
use crate::postgres::ControlData;
use crate::process;

/// Makes sure that a server finds its way with what the backup brought: an included file, or a directory elsewhere, may be
/// missing here. Names the files that xdb had to make.
///
/// # Errors
/// When a file cannot be moved or written.
pub async fn startable(
    data: &Path,
    bin: &Path,
    back: &PutBack,
    control: &ControlData,
) -> Result<Vec<String>, RestoreError> {
    const LIMIT: Duration = Duration::from_secs(30);
    let mut made: Vec<String> = back.made.iter().map(|name| (*name).to_owned()).collect();
    let mut why = None;
    for setting in ["data_directory", "hba_file"] {
        let mut command = process::command(bin.join("postgres"));
        command.arg("-D").arg(data).args(["-C", setting]);
        let asked = process::run(command, LIMIT).await?;
        let text = String::from_utf8_lossy(&asked.stdout);
        let path = Path::new(text.trim());
        why = match setting {
            _ if !asked.status.success() => Some(without_values(&asked.last_words())),
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
        let unusable = brought::replace(data, "postgresql.conf", control)?;
        made.push(format!(
            "postgresql.conf (that of the backup is now {unusable}: {why})"
        ));
    }
    Ok(made)
}

/// PostgreSQL's words about a configuration, without what it quotes of it: a value may be a secret.
fn without_values(words: &str) -> String {
    // `invalid value for parameter "x": "…"`, `syntax error in file "x" line 7, near token "…"`
    let value = words
        .find("parameter \"")
        .and_then(|at| Some(at + words[at..].find("\": ")? + 1));
    let token = words.find(", near token");
    let end = [value, token].into_iter().flatten().min();
    words[..end.unwrap_or(words.len())].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_setting_is_repeated() {
        for (words, expected) in [
            (
                "FATAL:  invalid value for parameter \"primary_conninfo\": \"password=secret\"",
                "FATAL:  invalid value for parameter \"primary_conninfo\"",
            ),
            (
                "LOG:  syntax error in file \"/d/postgresql.conf\" line 7, near token \"secret\"",
                "LOG:  syntax error in file \"/d/postgresql.conf\" line 7",
            ),
            (
                "FATAL:  could not open configuration file \"/etc/x.conf\": No such file or directory",
                "FATAL:  could not open configuration file \"/etc/x.conf\": No such file or directory",
            ),
        ] {
            assert_eq!(without_values(words), expected);
        }
    }
}
