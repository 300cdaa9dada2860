//! `xdb config show`: each effective value and where it came from, secrets masked.

use clap::Subcommand;

use super::exit::Exit;
use super::output::{say, table};
use crate::config::Loaded;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Print each effective value and its source
    Show,
}

pub fn run(verb: &Verb, loaded: &Loaded) -> anyhow::Result<Exit> {
    let Verb::Show = verb;
    let rows = loaded.effective().into_iter().map(|effective| {
        let value = effective.value.unwrap_or_else(|| "-".to_owned());
        vec![effective.key, value, effective.source.to_string()]
    });
    say(table(&["KEY", "VALUE", "SOURCE"], &[], rows).trim_fmt())?;
    Ok(Exit::Good)
}
