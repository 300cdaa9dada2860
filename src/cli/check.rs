//! `xdb check`: what is watched, looked at now.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;

use super::check_output::print;
use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::say;
use super::{check_explain, check_list, check_nagios};
use crate::checks::{
    self, CheckResult, Definition, DefinitionError, Definitions, Nodes, Round, Sampler, read_file,
};
use crate::cluster::{self, Peer};
use crate::config::Config;
use crate::log;
use crate::model::{Finding, Verdict};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all ok, 1 a warning or worse, 4 nothing worse than unknown: something could not be looked at, or not yet.\n\
                  With --nagios: 0 ok, 1 warning, 2 critical, 3 unknown. With --lint: 0 right, 2 wrong.\n\
                  Checks are built in; a file of the same name and kind in /etc/xdb/checks replaces one, any other name adds one.\n\
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
    /// A check has watched too little to judge.
    not_yet: bool,
}

impl Looked<'_> {
    /// Nothing was judged that was asked for: that is not well-being.
    fn is_blind(&self) -> bool {
        self.not_yet && self.findings.is_empty()
    }
}

/// Reads files of checks, and says what is wrong with each.
pub(super) fn lint(files: &[PathBuf]) -> anyhow::Result<Exit> {
    let mut exit = Exit::Good;
    for file in files {
        if file.extension().is_none_or(|found| found != "toml") {
            let message = format!("{} would not be read", file.display());
            complain(&message, Some("the name of a check's file ends in .toml"));
            exit = Exit::Usage;
            continue;
        }
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
    let name = arguments.name.as_deref();
    let is_named = |fault: &&DefinitionError| name.is_none_or(|name| fault.is_of(name));
    let wrong: Vec<_> = faults.iter().filter(is_named).collect();
    if let Some(name) = name {
        let names: Vec<_> = definitions.iter().map(|one| one.name.as_str()).collect();
        let hint = format!("the checks are {}", names.join(", "));
        definitions.retain(|definition| definition.name == *name);
        if definitions.is_empty() && arguments.nagios {
            let reason = wrong.first().map(|fault| fault.with_line());
            let reason = reason.unwrap_or_else(|| format!("there is no check {name}"));
            return check_nagios::unknown(&reason);
        }
        if definitions.is_empty() && wrong.is_empty() {
            complain(&format!("there is no check {name}"), Some(&hint));
            return Ok(Exit::Usage);
        }
    }
    let sampler = Sampler::new(&handles.loaded, handles.repository.clone())?;
    let round = round(handles.config(), arguments.explain).await;
    let mut looked = look(&sampler, &definitions, &round).await;
    if arguments.nagios {
        let mut reasons: Vec<_> = wrong.iter().map(|fault| fault.with_line()).collect();
        if looked.is_blind() {
            reasons.append(&mut looked.left_out);
        }
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
    let verdicts = looked.findings.iter().map(|finding| &finding.verdict);
    let judged = if looked.is_blind() {
        Exit::CouldNot
    } else {
        judge_exit(verdicts)
    };
    Ok(report_faults(&wrong).unwrap_or(judged))
}

/// Makes one check after the other.
async fn look<'a>(sampler: &Sampler, definitions: &'a [Definition], round: &Round) -> Looked<'a> {
    let mut looked = Looked::default();
    for definition in definitions {
        let name = &definition.name;
        match sampler.run(definition, round).await {
            CheckResult::Findings(found) => {
                looked.findings.extend(found);
                looked.made.push(definition);
            }
            CheckResult::OtherRole => {
                let why = format!("{name} runs on the {} only", definition.role);
                looked.left_out.push(why);
            }
            CheckResult::NotYet(reason) => {
                looked.left_out.push(format!("{name} {reason}"));
                looked.not_yet = true;
            }
        }
    }
    looked
}

/// What only the daemon has watched: the primary's positions, and which alerts stand. Without it a replica's lag is unknown.
async fn round(config: &Config, explained: bool) -> Round {
    let address = cluster::own_address(&config.http.listen);
    let primary = cluster::ask_positions(&address).await.unwrap_or_default();
    let state = cluster::ask_state(&address).await;
    let round = match state {
        Err(_) => Round::new(primary, &[]),
        Ok(state) => Round::new(primary, &state.alerts).with_nodes(Nodes {
            peers: ask_peers(&config.cluster.peers, &state.hostname).await,
            sample: state.view.sample,
            server: state.server,
        }),
    };
    if explained { round.explained() } else { round }
}

/// The other nodes, each asked once.
async fn ask_peers(addresses: &[String], own: &str) -> Vec<Peer> {
    let mut peers = Vec::new();
    for address in addresses {
        let mut peer = Peer::new(address);
        match cluster::ask_state(address).await {
            Ok(state) if state.hostname == own => continue,
            Ok(state) => peer.answered(state, Timestamp::now()),
            Err(error) => peer.failed(log::chain(&error), Timestamp::now()),
        }
        peers.push(peer);
    }
    peers
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
