//! `xdb check`: what is watched, looked at now.

use std::ffi::OsStr;
use std::path::Path;

use clap::Args;
use jiff::Timestamp;

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::{say, table};
use crate::checks::{self, CheckResult, Definition, DefinitionError, Definitions, Sampler};
use crate::cluster;
use crate::log;
use crate::model::{Finding, Verdict};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all ok, 1 a warning or worse, 4 nothing worse than unknown: something could not be looked at.\n\
                  Checks are built in; a file of the same name in /etc/xdb/checks replaces one, any other adds one."
)]
pub(crate) struct Arguments {
    /// One check; all of them where not given
    name: Option<String>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let Definitions {
        mut definitions,
        faults,
    } = checks::load(Path::new(checks::DIRECTORY));
    if let Some(name) = &arguments.name {
        let names: Vec<_> = definitions.iter().map(|one| one.name.as_str()).collect();
        let hint = format!("the checks are {}", names.join(", "));
        definitions.retain(|definition| definition.name == *name);
        if definitions.is_empty() {
            complain(&format!("there is no check {name}"), Some(&hint));
            return Ok(Exit::Usage);
        }
    }
    let sampler = Sampler::new(&handles.loaded, handles.repository.clone())?;
    // Only the daemon has watched the primary; without it a replica's lag is unknown, and says so.
    let address = cluster::own_address(&handles.config().http.listen);
    let primary = cluster::ask_positions(&address).await.unwrap_or_default();
    let mut findings = Vec::new();
    let mut elsewhere = Vec::new();
    for definition in &definitions {
        match sampler.run(definition, &primary, Timestamp::now()).await {
            CheckResult::Findings(found) => findings.extend(found),
            CheckResult::OtherRole => elsewhere.push(definition),
        }
    }
    if arguments.json {
        say(serde_json::to_string_pretty(&findings)?)?;
    } else {
        print(&findings, &elsewhere)?;
    }
    // Wrong files are reported after the findings of the other checks, and decide the exit code.
    let named = |fault: &&DefinitionError| {
        let stem = Path::new(&fault.file()).file_stem().map(OsStr::to_owned);
        arguments
            .name
            .as_ref()
            .is_none_or(|name| stem.as_deref() == Some(OsStr::new(name)))
    };
    let wrong: Vec<_> = faults.iter().filter(named).collect();
    for fault in &wrong {
        complain(&log::chain(*fault), Some(fault.hint()));
    }
    if !wrong.is_empty() {
        return Ok(Exit::Usage);
    }
    Ok(judge_exit(findings.iter().map(|finding| &finding.verdict)))
}

/// What is known to be bad weighs more than what could not be looked at.
pub(super) fn judge_exit<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Exit {
    verdicts.fold(Exit::Good, |worst, verdict| match (verdict, worst) {
        (Verdict::Warning(_) | Verdict::Critical(_), _) | (_, Exit::Bad) => Exit::Bad,
        (Verdict::Unknown(_), _) => Exit::CouldNot,
        (Verdict::Ok, worst) => worst,
    })
}

fn print(findings: &[Finding], elsewhere: &[&Definition]) -> std::io::Result<()> {
    let rows = findings.iter().map(|finding| {
        vec![
            finding.check.clone(),
            finding.object.clone(),
            finding.verdict.word().to_owned(),
            finding.verdict.reason().unwrap_or_default().to_owned(),
        ]
    });
    if !findings.is_empty() {
        let header = ["CHECK", "OBJECT", "VERDICT", "REASON"];
        say(table(&header, &[], rows).trim_fmt())?;
    }
    for definition in elsewhere {
        say(format_args!(
            "{} runs on the {} only",
            definition.name, definition.role
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_worst_verdict() {
        let ok = || Verdict::Ok;
        let bad = || Verdict::Warning(String::new());
        let unknown = || Verdict::Unknown(String::new());
        for (verdicts, exit) in [
            (vec![], Exit::Good),
            (vec![ok(), ok()], Exit::Good),
            (vec![ok(), unknown(), ok()], Exit::CouldNot),
            (vec![unknown(), bad(), unknown()], Exit::Bad),
            (vec![Verdict::Critical(String::new()), ok()], Exit::Bad),
        ] {
            assert_eq!(judge_exit(verdicts.iter()), exit, "{verdicts:?}");
        }
    }
}
