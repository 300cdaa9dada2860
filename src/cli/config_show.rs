//! `xdb config show`: each effective value and where it came from, secrets masked.

use clap::Subcommand;

use super::exit::Exit;
use super::output::{say, table};
use crate::config::Loaded;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print each effective value and its source
    Show,
    /// Print everything that is wrong in xdb.toml, in the environment and in /etc/xdb/checks
    #[command(
        after_help = "Exit codes: 0 all is right, 2 something is wrong, whether the daemon starts with it or not."
    )]
    Check,
}

pub fn run(loaded: &Loaded) -> anyhow::Result<Exit> {
    let rows = loaded.effective().into_iter().map(|effective| {
        let value = effective.value.unwrap_or_else(|| "-".to_owned());
        vec![effective.key, value, effective.source.to_string()]
    });
    say(table(&["KEY", "VALUE", "SOURCE"], &[], rows).trim_fmt())?;
    Ok(Exit::Good)
}
