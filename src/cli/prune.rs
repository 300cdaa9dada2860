//! `xdb prune`: deletes what retention does not keep, or only shows it.

use bytesize::ByteSize;
use clap::Args;

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::{say, table};
use crate::archive::retention::{self, PrunePlan};
use crate::jobs::{self, Job};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 the bucket is as planned, 1 it is not, 3 refused, 4 could not check or run."
)]
pub(crate) struct Arguments {
    /// Show what would be done, and delete nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the plan and what came of it as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// The job that it runs.
    pub(crate) fn job(&self) -> Option<&'static Job> {
        (!self.dry_run).then_some(&jobs::prune::JOB)
    }
}

pub(crate) async fn run(arguments: Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let config = handles.config();
    if arguments.dry_run {
        let repository = handles.repository.get().await?;
        let plan = retention::plan(&repository, &config.node, config.retention).await?;
        if arguments.json {
            say(serde_json::to_string_pretty(&plan)?)?;
        } else {
            print(&plan)?;
        }
        return Ok(Exit::Good);
    }
    let prune = jobs::prune::run(&config.node, config.retention, &handles.repository);
    let report = handles.run_once(&jobs::prune::JOB, prune).await?;
    if arguments.json {
        say(serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report.plan)?;
    }
    Ok(judged(&report.gone, &report.left, "runbooks/prune.md"))
}

/// Names what is `gone` and was to be kept, and what is `left` and was to go.
pub(super) fn judged(gone: &[String], left: &[String], runbook: &str) -> Exit {
    for (what, names) in [
        ("GONE, and retention keeps it", gone),
        ("LEFT, and retention deletes it", left),
    ] {
        for name in names {
            complain(&format!("{what}: {name}"), None);
        }
    }
    if gone.is_empty() && left.is_empty() {
        return Exit::Good;
    }
    let hint = format!("see {runbook}; the next prune deletes what was left");
    complain("the bucket is not as planned", Some(&hint));
    Exit::Bad
}

fn print(plan: &PrunePlan) -> std::io::Result<()> {
    let backups = plan.backups.iter().map(|backup| {
        vec![
            backup.name.clone(),
            backup.action.words().to_owned(),
            ByteSize(backup.bytes).to_string(),
            backup.reason.clone(),
        ]
    });
    let wal = plan.wal.iter().map(|range| {
        let named = match range.first == range.last {
            true => range.first.clone(),
            false => format!("{} to {}", range.first, range.last),
        };
        vec![
            named,
            if range.keep { "keep" } else { "delete" }.to_owned(),
            ByteSize(range.bytes).to_string(),
            range.reason.clone(),
        ]
    });
    for (what, rows) in [
        ("BACKUP", backups.collect::<Vec<_>>()),
        ("WAL", wal.collect()),
    ] {
        if !rows.is_empty() {
            let header = [what, "ACTION", "STORED", "REASON"];
            say(table(&header, &[2], rows).trim_fmt())?;
        }
    }
    let (deleted, kept) = plan.bytes();
    say(format_args!(
        "{} to delete, {} to keep",
        ByteSize(deleted),
        ByteSize(kept)
    ))
}
