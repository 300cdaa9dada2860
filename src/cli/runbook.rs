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

#[cfg(test)]
mod tests {
    use std::process::Command;

    use clap::Parser as _;
    use clap::error::ErrorKind;

    use super::super::Cli;
    use super::*;

    /// The commands of all runbooks, each with the runbook's name: what stands in backquotes.
    fn commands() -> Vec<(&'static str, String)> {
        let text = |name: &str| match runbook(name, &[]) {
            Some(Runbook::Packaged(text)) => text,
            other => panic!("{name}: {other:?}"),
        };
        let spans = |name: &'static str| {
            let mut inside = text(name).split('`').skip(1).step_by(2);
            std::iter::from_fn(move || inside.next())
                .map(move |span| (name, span.replace('\n', " ")))
        };
        runbooks().flat_map(|(name, _)| spans(name)).collect()
    }

    #[test]
    fn every_command_of_xdb_in_a_runbook_parses_and_names_checks_that_there_are() {
        let checks = checks::load(Path::new("/nonexistent")).definitions;
        let mut seen = 0;
        for (runbook, command) in commands() {
            let command = command.split(" | ").next().unwrap_or_default();
            if !command.starts_with("xdb ") {
                continue;
            }
            seen += 1;
            let words: Vec<_> = command.split_whitespace().collect();
            // What is missing, and what stands for a value, is the reader's.
            if let Err(error) = Cli::try_parse_from(&words) {
                let wrong = [ErrorKind::UnknownArgument, ErrorKind::InvalidSubcommand];
                assert!(
                    !wrong.contains(&error.kind()),
                    "{runbook}: {command}: {error}"
                );
            }
            if let ["xdb", "check", name, ..] = words.as_slice() {
                let there = name.starts_with('-') || checks.iter().any(|check| check.name == *name);
                assert!(there, "{runbook}: {command}: there is no such check");
            }
        }
        assert!(seen > 100, "{seen}");
    }

    #[test]
    fn every_other_command_in_a_runbook_is_one_for_a_shell() {
        const PROGRAMS: [&str; 16] = [
            "psql",
            "systemctl",
            "journalctl",
            "df",
            "du",
            "tail",
            "grep",
            "dmesg",
            "smartctl",
            "openssl",
            "chronyc",
            "timedatectl",
            "vacuumdb",
            "pg_checksums",
            "ls",
            "ps",
        ];
        let mut seen = 0;
        for (runbook, command) in commands() {
            let program = command.split_whitespace().next().unwrap_or_default();
            if !PROGRAMS.contains(&program) || command == program {
                continue;
            }
            seen += 1;
            let parsed = Command::new("sh").args(["-nc", &command]).output().unwrap();
            assert!(parsed.status.success(), "{runbook}: {command}: {parsed:?}");
        }
        assert!(seen > 60, "{seen}");
    }
}
