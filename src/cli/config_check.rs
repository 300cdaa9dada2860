//! `xdb config check`: everything that is wrong in xdb's own files, before a daemon has to start with them; and whether this
//! node can read the dumps that it would encrypt.

use std::path::Path;

use super::exit::{Exit, complain};
use super::output::say;
use crate::checks;
use crate::config::{self, ConfigError, Sources};
use crate::dump;
use crate::log;

pub(crate) fn run(sources: &Sources) -> anyhow::Result<Exit> {
    let checks = checks::load(Path::new(checks::DIRECTORY));
    let (strict, no_key) = match config::load(sources) {
        Ok(loaded) => (None, dump::judge_identity(&loaded.config.dump).err()),
        Err(error) => (Some(error), None),
    };
    let serves = config::load_to_serve(sources).is_ok();
    if let Some(error) = &strict {
        match error {
            ConfigError::Wrong { problems } => {
                for problem in problems {
                    complain(&problem.message, Some(&problem.hint));
                }
            }
            other => complain(&log::chain(other), other.hint().as_deref()),
        }
        // The complaint about a file that is open to every user hides what is wrong inside of it.
        if let (ConfigError::Exposed { .. }, Ok(loaded)) = (error, config::load_to_serve(sources)) {
            let file = sources.file.path().display().to_string();
            for problem in loaded
                .faults
                .iter()
                .filter(|one| one.message.contains(&format!("{file}:")))
            {
                complain(&problem.message, Some(&problem.hint));
            }
        }
    }
    for fault in &checks.faults {
        complain(&fault.with_line(), Some(fault.hint()));
    }
    if let Some(error) = &no_key {
        let what = "dumps are encrypted (dump.age_recipients), and this node can neither test nor restore them";
        complain(
            &format!("{what}: {}", log::chain(error)),
            Some(&error.hint()),
        );
    }
    if strict.is_none() && checks.faults.is_empty() {
        let file = sources.file.path().display();
        let count = checks.definitions.len();
        // A node that only dumps needs no identity.
        if no_key.is_some_and(|error| !matches!(error, dump::KeyError::NotSet)) {
            return Ok(Exit::Bad);
        }
        say(format_args!("{file}: ok, with {count} checks"))?;
        return Ok(Exit::Good);
    }
    say(if serves {
        "the daemon starts and serves all the same; what is wrong is left out, and is an alert"
    } else {
        "the daemon does not start with this"
    })?;
    Ok(Exit::Usage)
}
