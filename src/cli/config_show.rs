//! `xdb config show`: each effective value and where it came from, secrets masked.

use clap::Subcommand;

use super::exit::Exit;
use super::output::{say, table};
use crate::config::{Config, Loaded};
use crate::storage::Location;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print each effective value and its source
    Show,
    /// Print everything that is wrong in xdb.toml, in the environment and in /etc/xdb/checks
    #[command(
        after_help = "Exit codes: 0 all is right, 1 dumps are encrypted and this node cannot decrypt them, 2 something is wrong, whether the daemon starts with it or not."
    )]
    Check,
}

pub(crate) fn run(loaded: &Loaded) -> anyhow::Result<Exit> {
    let mut rows = Vec::new();
    for effective in loaded.effective() {
        let filled = filled_in(&effective.key, &loaded.config);
        let value = effective.value.unwrap_or_else(|| "-".to_owned());
        rows.push(vec![
            effective.key.clone(),
            value,
            effective.source.to_string(),
        ]);
        if let Some(filled) = filled {
            rows.push(vec![
                format!("{}, filled in", effective.key),
                filled,
                String::new(),
            ]);
        }
    }
    say(table(&["KEY", "VALUE", "SOURCE"], &[], rows).trim_fmt())?;
    Ok(Exit::Good)
}

/// What a repository's template is on this node, or why it cannot be told; `None` for every other key.
fn filled_in(key: &str, config: &Config) -> Option<String> {
    let (key, template) = match key {
        "archive.repository" => ("archive.repository", &config.archive.repository),
        "dump.repository" => ("dump.repository", &config.dump.repository),
        _ => return None,
    };
    Some(
        match Location::fill(key, template, &config.repository_settings()) {
            Ok(repository) => repository.to_string(),
            Err(unknown) => format!("unknown: {} is not known here", unknown.placeholder),
        },
    )
}
