//! `xdb dump prune`: deletes the dumps that retention does not keep, or only shows them.

use bytesize::ByteSize;
use clap::Args;

use super::exit::Exit;
use super::handles::Handles;
use super::output::{say, table};
use super::prune::judged;
use crate::dump::{self, DumpPlan};
use crate::jobs::{self, Job};

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 the bucket is as planned, 1 it is not, 2 no retention is set, 3 refused, 4 could not check or run."
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
        (!self.dry_run).then_some(&jobs::dump_prune::JOB)
    }
}

pub(crate) async fn run(arguments: &Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let config = handles.config();
    if arguments.dry_run {
        let dumps = handles.dumps().await?;
        let plan = dump::look_and_plan(&dumps, config.retention).await?;
        if arguments.json {
            say(serde_json::to_string_pretty(&plan)?)?;
        } else {
            print(&plan)?;
        }
        return Ok(Exit::Good);
    }
    let prune = jobs::dump_prune::run(config, &handles.repository);
    let report = handles.run_once(&jobs::dump_prune::JOB, prune).await?;
    if arguments.json {
        say(serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report.plan)?;
        for retained in &report.retained {
            say(format_args!(
                "retained: {}: {}",
                retained.key, retained.reason
            ))?;
        }
    }
    Ok(judged(&report.gone, &report.left, "runbooks/dump-prune.md"))
}

fn print(plan: &DumpPlan) -> std::io::Result<()> {
    let sets = plan.sets.iter().map(|set| {
        vec![
            set.set.clone(),
            set.action.word().to_owned(),
            ByteSize(set.bytes).to_string(),
            set.reason.clone(),
        ]
    });
    let uploads = plan.uploads.iter().map(|upload| {
        vec![
            upload.key.clone(),
            upload.action.word().to_owned(),
            upload.initiated.strftime("%F %T").to_string(),
            upload.reason.clone(),
        ]
    });
    let foreign = plan.foreign.iter().map(|foreign| {
        vec![
            foreign.name.clone(),
            foreign.objects.to_string(),
            ByteSize(foreign.bytes).to_string(),
            foreign.reason.clone(),
        ]
    });
    for (header, right, rows) in [
        (
            ["SET", "ACTION", "STORED", "REASON"],
            &[2][..],
            sets.collect::<Vec<_>>(),
        ),
        (
            ["UNFINISHED UPLOAD", "ACTION", "BEGUN (UTC)", "REASON"],
            &[],
            uploads.collect(),
        ),
        (
            ["LEFT ALONE", "OBJECTS", "STORED", "REASON"],
            &[1, 2],
            foreign.collect(),
        ),
    ] {
        if !rows.is_empty() {
            say(table(&header, right, rows).trim_fmt())?;
        }
    }
    let (deleted, kept) = plan.bytes();
    say(format_args!(
        "{} to delete, {} to keep",
        ByteSize(deleted),
        ByteSize(kept)
    ))
}
