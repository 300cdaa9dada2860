//! `xdb runbook NAME`: what to do about an alert, without a browser.

use std::path::Path;

use anyhow::Context;
use clap::Args;

use super::exit::{Exit, complain};
use super::output::{say, table};
use crate::checks::{self, Runbook, runbook, runbooks};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The check, alert or procedure, such as replication-lag or promote; unset, all runbooks are listed
    name: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Exit> {
    let Some(name) = &arguments.name else {
        let rows = runbooks().map(|(name, title)| vec![name.to_owned(), title.to_owned()]);
        say(table(&["RUNBOOK", "TITLE"], &[], rows).trim_fmt())?;
        return Ok(Exit::Good);
    };
    let definitions = checks::load(Path::new(checks::DIRECTORY)).definitions;
    match runbook(name, &definitions) {
        Some(Runbook::Packaged(text)) => say(text.trim_end())?,
        Some(Runbook::Elsewhere(place)) if place.starts_with('/') => {
            let text = std::fs::read_to_string(&place);
            say(text
                .with_context(|| format!("cannot read {place}"))?
                .trim_end())?;
        }
        Some(Runbook::Elsewhere(place)) => say(place)?,
        None => {
            complain(
                &format!("there is no runbook {name}"),
                Some(
                    "`xdb runbook` lists them; a check of your own names its runbook with the key `runbook`",
                ),
            );
            return Ok(Exit::Usage);
        }
    }
    Ok(Exit::Good)
}
