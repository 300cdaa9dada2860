//! `xdb check`: what is watched, looked at now.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::{say, table};
use super::{check_explain, check_list, check_nagios};
use crate::checks::{
    self, CheckResult, Definition, DefinitionError, Definitions, Round, Sampler, read_file,
};
use crate::cluster;
use crate::config::Config;
use crate::log;
use crate::model::{Finding, Verdict};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all ok, 1 a warning or worse, 4 nothing worse than unknown: something could not be looked at.\n\
                  With --nagios: 0 ok, 1 warning, 2 critical, 3 unknown. With --lint: 0 right, 2 wrong.\n\
                  Checks are built in; a file of the same name in /etc/xdb/checks replaces one, any other adds one.\n\
                  The daemon reads those files when it starts and on SIGHUP (systemctl reload xdb)."
)]
pub(crate) struct Arguments {
    /// One check, or `list` for all of them with their origins, roles and thresholds; unset, all checks are made
    name: Option<String>,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// Show what the check asks, the rows of the answer, and how they are judged
    #[arg(long, requires = "name", conflicts_with = "nagios")]
    explain: bool,
    /// Print one line with performance data, and exit as a Nagios plugin
    #[arg(long, conflicts_with = "json")]
    pub nagios: bool,
    /// Only read these files, and say what is wrong with them
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["name", "json", "explain", "nagios"])]
    pub lint: Vec<PathBuf>,
}

/// What was found, and what was not judged.
#[derive(Default)]
struct Looked<'a> {
    findings: Vec<Finding>,
    /// Why a check has no finding, in a sentence.
    left_out: Vec<String>,
    made: Vec<&'a Definition>,
}

/// Reads files of checks, and says what is wrong with each.
pub(super) fn lint(files: &[PathBuf]) -> anyhow::Result<Exit> {
    let mut exit = Exit::Good;
    for file in files {
        match read_file(file) {
            Ok(definition) => say(format_args!(
                "{}: ok, the check {} ({})",
                file.display(),
                definition.name,
                definition.kind.word()
            ))?,
            Err(fault) => {
                complain(&fault.with_line(), Some(fault.hint()));
                exit = Exit::Usage;
            }
        }
    }
    Ok(exit)
}

/// A Nagios plugin that cannot begin is unknown, and says so on standard output.
pub(super) fn cannot_begin(error: &anyhow::Error) -> anyhow::Result<Exit> {
    check_nagios::unknown(&log::chain(error.as_ref()))
}

pub(crate) async fn run(arguments: Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let Definitions {
        mut definitions,
        faults,
    } = checks::load(Path::new(checks::DIRECTORY));
    if arguments.name.as_deref() == Some("list") {
        check_list::print(&definitions, arguments.json)?;
        return Ok(report_faults(&faults.iter().collect::<Vec<_>>()).unwrap_or(Exit::Good));
    }
    let wrong: Vec<_> = faults
        .iter()
        .filter(|fault| {
            arguments
                .name
                .as_deref()
                .is_none_or(|name| fault.is_of(name))
        })
        .collect();
    if let Some(name) = &arguments.name {
        let names: Vec<_> = definitions.iter().map(|one| one.name.as_str()).collect();
        let hint = format!("the checks are {}", names.join(", "));
        definitions.retain(|definition| definition.name == *name);
        if definitions.is_empty() && arguments.nagios {
            return check_nagios::unknown(&format!("there is no check {name}"));
        }
        if definitions.is_empty() && wrong.is_empty() {
            complain(&format!("there is no check {name}"), Some(&hint));
            return Ok(Exit::Usage);
        }
    }
    let sampler = Sampler::new(&handles.loaded, handles.repository.clone())?;
    let round = round(handles.config(), arguments.explain).await;
    let mut looked = Looked::default();
    for definition in &definitions {
        match sampler.run(definition, &round).await {
            CheckResult::Findings(found) => {
                looked.findings.extend(found);
                looked.made.push(definition);
            }
            CheckResult::OtherRole => {
                let (name, role) = (&definition.name, definition.role);
                looked
                    .left_out
                    .push(format!("{name} runs on the {role} only"));
            }
            CheckResult::NotYet(reason) => {
                looked
                    .left_out
                    .push(format!("{} {reason}", definition.name));
            }
        }
    }
    if arguments.nagios {
        let reasons = wrong
            .iter()
            .map(|fault| fault.with_line())
            .collect::<Vec<_>>();
        return check_nagios::print(&looked.made, &looked.findings, &looked.left_out, &reasons);
    }
    if arguments.explain {
        let definition = definitions.first();
        check_explain::print(definition, &round.asked(), &looked.findings, arguments.json)?;
    } else if arguments.json {
        say(serde_json::to_string_pretty(&looked.findings)?)?;
    } else {
        print(&looked.findings)?;
    }
    if !arguments.json {
        for left_out in &looked.left_out {
            say(left_out)?;
        }
    }
    // Wrong files are reported after the findings of the other checks, and decide the exit code.
    if let Some(exit) = report_faults(&wrong) {
        return Ok(exit);
    }
    let verdicts = looked.findings.iter().map(|finding| &finding.verdict);
    Ok(judge_exit(verdicts))
}

/// What only the daemon has watched: the primary's positions, and which alerts stand. Without it a replica's lag is unknown.
async fn round(config: &Config, explained: bool) -> Round {
    let address = cluster::own_address(&config.http.listen);
    let primary = cluster::ask_positions(&address).await.unwrap_or_default();
    let state = cluster::ask_state(&address).await;
    let round = Round::new(primary, &state.map(|it| it.alerts).unwrap_or_default());
    if explained { round.explained() } else { round }
}

fn report_faults(faults: &[&DefinitionError]) -> Option<Exit> {
    for fault in faults {
        complain(&fault.with_line(), Some(fault.hint()));
    }
    (!faults.is_empty()).then_some(Exit::Usage)
}

/// What is known to be bad weighs more than what could not be looked at.
pub(super) fn judge_exit<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Exit {
    verdicts.fold(Exit::Good, |worst, verdict| match (verdict, worst) {
        (Verdict::Warning(_) | Verdict::Critical(_), _) | (_, Exit::Bad) => Exit::Bad,
        (Verdict::Unknown(_), _) => Exit::CouldNot,
        (Verdict::Ok, worst) => worst,
    })
}

pub(super) fn print(findings: &[Finding]) -> std::io::Result<()> {
    let rows = findings.iter().map(|finding| {
        vec![
            finding.check.clone(),
            finding.object.clone(),
            finding.verdict.word().to_owned(),
            finding.verdict.reason().unwrap_or_default().to_owned(),
        ]
    });
    if findings.is_empty() {
        return Ok(());
    }
    let header = ["CHECK", "OBJECT", "VERDICT", "REASON"];
    say(table(&header, &[], rows).trim_fmt())
}

/// A check as JSON.
#[derive(Serialize)]
pub(super) struct Listed<'a> {
    pub name: &'a str,
    pub title: &'a str,
    /// `packaged`, or the operator's file.
    pub origin: String,
    pub kind: &'a str,
    pub role: String,
    pub unit: Option<&'a str>,
    pub warning: Option<f64>,
    pub critical: Option<f64>,
    /// `above` or `below`.
    pub worse: Option<&'static str>,
    pub recover: Option<f64>,
    pub for_secs: f64,
    pub interval_secs: f64,
    pub runbook: Option<&'a str>,
}

impl<'a> From<&'a Definition> for Listed<'a> {
    fn from(definition: &'a Definition) -> Self {
        let limits = definition.kind.limits();
        Self {
            name: &definition.name,
            title: &definition.title,
            origin: definition.origin(),
            kind: definition.kind.word(),
            role: definition.role.to_string(),
            unit: limits.map(|(_, unit)| unit).filter(|unit| !unit.is_empty()),
            warning: limits.and_then(|(limits, _)| limits.warning),
            critical: limits.and_then(|(limits, _)| limits.critical),
            worse: limits.map(|(limits, _)| limits.worse.word()),
            recover: limits.map(|(limits, _)| limits.recover),
            for_secs: definition.hold.as_secs_f64(),
            interval_secs: definition.interval.as_secs_f64(),
            runbook: definition.runbook.as_deref(),
        }
    }
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
