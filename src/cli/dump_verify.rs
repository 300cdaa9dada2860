//! `xdb dump verify`: whether the bucket still holds what was stored.

use bytesize::ByteSize;
use clap::Args;
use serde::Serialize;

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::say;
use crate::dump::{self, Dumps, Listed, Status, VerifiedObject, VerifiedSet};
use crate::log;
use crate::model::Verdict;
use crate::restore::RestoreError;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 each object is what was stored, 1 one is missing or is not, 4 one could not be read."
)]
pub(crate) struct Arguments {
    /// The set to read, by default the newest one of every database
    #[arg(value_name = "NAME", conflicts_with = "all")]
    set: Option<String>,
    /// Read every finished set
    #[arg(long)]
    all: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// The JSON of `xdb dump verify --json`.
#[derive(Debug, Serialize)]
struct Verified {
    /// Every object of every set was read, and is what was stored.
    passed: bool,
    sets: Vec<VerifiedSet>,
    /// Sets that are being written, or were never finished.
    not_finished: Vec<String>,
}

pub(crate) async fn run(arguments: &Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let dumps = handles.dumps().await?;
    let listed = dump::list(&dumps).await?;
    let (unfinished, chosen) = choose(arguments, &listed, &dumps)?;
    let mut sets = Vec::new();
    for set in chosen {
        let mut progress = |object: &VerifiedObject| log::to_stderr(&format!("{}\n", line(object)));
        sets.push(dump::verify(&dumps, set, &mut progress).await);
    }
    let verdict = Verdict::worst(sets.iter().map(|set| &set.verdict));
    let verified = Verified {
        passed: verdict == Verdict::Ok,
        sets,
        not_finished: unfinished,
    };
    if arguments.json {
        say(serde_json::to_string_pretty(&verified)?)?;
    } else {
        print(&verified)?;
    }
    Ok(conclude(&verdict))
}

/// The names of the unfinished sets that are passed over, and the sets to read.
fn choose<'a>(
    arguments: &Arguments,
    listed: &'a [Listed],
    dumps: &Dumps,
) -> Result<(Vec<String>, Vec<&'a Listed>), RestoreError> {
    let repository = || dumps.location.to_string();
    if let Some(name) = &arguments.set {
        let set = name.clone();
        let found = listed.iter().find(|listed| listed.set == *name);
        return match found {
            None => Err(RestoreError::NoSuchSet {
                set,
                repository: repository(),
            }),
            Some(found) if found.status == Status::Incomplete => {
                Err(RestoreError::UnfinishedSet { set })
            }
            Some(found) => Ok((Vec::new(), vec![found])),
        };
    }
    let (unfinished, finished): (Vec<_>, Vec<_>) = listed
        .iter()
        .partition(|set| set.status == Status::Incomplete);
    let chosen = match arguments.all {
        true => finished,
        false => dump::newest_full(listed, &dumps.cluster)
            .into_iter()
            .collect(),
    };
    if chosen.is_empty() {
        let repository = repository();
        return Err(RestoreError::NoDump { repository });
    }
    let unfinished = unfinished.into_iter().filter(|_| arguments.all);
    Ok((unfinished.map(|set| set.set.clone()).collect(), chosen))
}

fn line(object: &VerifiedObject) -> String {
    let (word, key) = (object.verdict.word(), &object.key);
    let reason = object.verdict.reason();
    let reason = reason.map_or_else(String::new, |reason| format!("  {reason}"));
    format!(
        "{word:<8}  {:>10}  {key}{reason}",
        ByteSize(object.bytes).to_string()
    )
}

fn print(verified: &Verified) -> std::io::Result<()> {
    for set in &verified.sets {
        let bytes: u64 = set.objects.iter().map(|object| object.bytes).sum();
        let (name, objects, secs) = (&set.set, set.objects.len(), set.secs);
        say(match &set.verdict {
            Verdict::Ok => format!(
                "VERIFIED: {name}, {objects} objects, {} read in {secs:.1} s",
                ByteSize(bytes)
            ),
            Verdict::Critical(reason) => format!("DAMAGED: {name}: {reason}"),
            Verdict::Unknown(reason) | Verdict::Warning(reason) => {
                format!("NOT VERIFIED: {name}: {reason}")
            }
        })?;
    }
    for set in &verified.not_finished {
        say(format_args!(
            "not finished: {set} has no manifest, and was not read"
        ))?;
    }
    Ok(())
}

fn conclude(verdict: &Verdict) -> Exit {
    let (exit, hint) = match verdict {
        Verdict::Ok => return Exit::Good,
        Verdict::Critical(_) => (
            Exit::Bad,
            "do not count on this dump: make a new one with `xdb dump push`; `xdb dump verify --all` reads the others",
        ),
        Verdict::Warning(_) | Verdict::Unknown(_) => (
            Exit::CouldNot,
            "nothing is known to be damaged: try again once S3 answers",
        ),
    };
    complain(verdict.reason().unwrap_or_default(), Some(hint));
    exit
}
