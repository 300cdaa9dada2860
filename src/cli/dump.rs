//! `xdb dump push`, `xdb dump list` and `xdb dump test`; the other verbs of dumps have files of their own.

use bytesize::ByteSize;
use clap::Subcommand;

use super::dump_prune;
use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::{say, say_each, show_step, table};
use super::{dump_restore, dump_show, dump_verify};
use crate::dump::{self, DumpSet, Listed, SetTest, Status};
use crate::jobs::{self, Job};
use crate::restore::dump::{DumpReport, DumpSetup};
use crate::restore::{self, Step};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Dump each database and the globals into the bucket, as one set
    Push {
        /// Only this database; may be given again
        #[arg(long, value_name = "NAME")]
        database: Vec<String>,
        /// Print the set's manifest as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the dump sets in the bucket: complete or not, sizes, databases
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one dump set: databases, tables with their rows, sizes, versions, and when it was tested
    Show(dump_show::Arguments),
    /// Read each object of a dump set through, and compare its length and SHA-256 with the manifest; restore nothing
    Verify(dump_verify::Arguments),
    /// Restore a database, or some of its tables, beside the live one or in its place
    Restore(Box<dump_restore::Arguments>),
    /// Restore a dump set into a scratch cluster, and compare it with its manifest: databases, tables, rows
    Test {
        /// The set to restore, the newest where not given
        #[arg(long, value_name = "NAME")]
        set: Option<String>,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Delete the dumps that retention does not keep, or show what would go
    Prune(dump_prune::Arguments),
}

impl Verb {
    /// The job to clean up after.
    pub(crate) fn job(&self) -> Option<&'static Job> {
        match self {
            Self::Push { .. } => Some(&jobs::dump::JOB),
            Self::Prune(arguments) => arguments.job(),
            Self::List { .. }
            | Self::Show(_)
            | Self::Verify(_)
            | Self::Restore(_)
            | Self::Test { .. } => None,
        }
    }
}

pub(crate) async fn run(verb: Verb, handles: &Handles) -> anyhow::Result<Exit> {
    match verb {
        Verb::Push { database, json } => {
            // A dump of some databases must not count as a success of the job.
            let set = if database.is_empty() {
                let dump = jobs::dump::run(handles.config(), &handles.repository);
                handles.run_once(&jobs::dump::JOB, dump).await?
            } else {
                dump::push(&handles.dumps().await?, &database).await?
            };
            if json {
                say(serde_json::to_string_pretty(&set)?)?;
            } else {
                print_set(&set)?;
            }
        }
        Verb::List { json } => {
            let dumps = handles.dumps().await?;
            let listed = dump::list(&dumps).await?;
            if json {
                say(serde_json::to_string_pretty(&listed)?)?;
            } else if listed.is_empty() {
                say(format_args!("no dump in {}", dumps.location))?;
            } else {
                print_list(&listed)?;
            }
        }
        Verb::Show(arguments) => return dump_show::run(&arguments, handles).await,
        Verb::Verify(arguments) => return dump_verify::run(&arguments, handles).await,
        // Its way through signals is its own: cli::run takes it before.
        Verb::Restore(_) => return Ok(Exit::Usage),
        Verb::Test { set, json } => return test(handles, set.as_deref(), json).await,
        Verb::Prune(arguments) => return dump_prune::run(&arguments, handles).await,
    }
    Ok(Exit::Good)
}

async fn test(handles: &Handles, set: Option<&str>, json: bool) -> anyhow::Result<Exit> {
    let config = handles.config();
    let mut progress = |step: &Step| show_step(step);
    // Only a test of the newest set is the job's own.
    let report = if set.is_none() {
        let test = jobs::dump_test::run(config, &handles.repository, &mut progress);
        handles.run_once(&jobs::dump_test::JOB, test).await
    } else {
        match handles.dumps().await {
            Ok(dumps) => {
                let settings = config.restore_test.clone();
                restore::dump::run(&DumpSetup { dumps, settings }, set, &mut progress).await
            }
            Err(error) => DumpReport::not_begun(error.into()),
        }
    };
    if json {
        say(serde_json::to_string_pretty(&report)?)?;
    } else {
        print_report(&report)?;
    }
    if let Some(reason) = &report.reason {
        complain(reason, report.hint.as_deref());
    }
    Ok(report.conclusion.into())
}

fn print_report(report: &DumpReport) -> std::io::Result<()> {
    let set = report.set.as_deref().unwrap_or("no dump");
    let bytes = ByteSize(report.bytes.unwrap_or_default());
    say(format_args!(
        "{}: dump test of {set}, {bytes} stored, in {:.1} s",
        report.conclusion.word(),
        report.secs
    ))?;
    if report.verifications.is_empty() {
        return Ok(());
    }
    say(report.network.description())?;
    say_each("not in the dump", &report.left_out)?;
    for note in &report.notes {
        say(format_args!("note: {note}"))?;
    }
    let rows = report.verifications.iter().map(|verification| {
        vec![
            verification.name.clone(),
            verification.verdict.word().to_owned(),
            verification.verdict.reason().unwrap_or_default().to_owned(),
        ]
    });
    say(table(&["VERIFICATION", "VERDICT", "REASON"], &[], rows).trim_fmt())
}

fn print_set(set: &DumpSet) -> std::io::Result<()> {
    let rows = set.databases.iter().map(|database| {
        vec![
            database.name.clone(),
            database.rows.len().to_string(),
            database.rows.values().sum::<u64>().to_string(),
            ByteSize(database.dump.bytes).to_string(),
        ]
    });
    let header = ["DATABASE", "TABLES", "ROWS", "STORED"];
    say(table(&header, &[1, 2, 3], rows).trim_fmt())?;
    let elapsed = set.finished_at.duration_since(set.started_at);
    say(format_args!(
        "{} is in the bucket: {} stored, in {:.1} s",
        set.set,
        ByteSize(set.bytes()),
        elapsed.as_secs_f64()
    ))?;
    if let Some(recipients) = set.age_recipients() {
        say(format_args!("encrypted to {}", recipients.join(", ")))?;
    }
    if set.partial == Some(true) {
        say("it is partial: it does not count as a dump of this cluster")?;
    }
    say_each("not in the dump", &set.left_out)
}

fn print_list(listed: &[Listed]) -> std::io::Result<()> {
    let test = |tested: &SetTest| {
        let result = if tested.passed { "passed" } else { "failed" };
        format!("{result} {}", tested.at.strftime("%F %T"))
    };
    let rows = listed.iter().map(|listed| {
        let databases = listed.manifest.as_ref().map(|manifest| {
            let names = manifest.databases.iter().map(|it| it.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        });
        let status = match listed.status {
            Status::Complete if listed.partial => "partial",
            status => status.word(),
        };
        vec![
            listed.set.clone(),
            status.to_owned(),
            listed.started_at.strftime("%F %T").to_string(),
            ByteSize(listed.stored_bytes).to_string(),
            listed
                .tested
                .as_ref()
                .map_or_else(|| "never".to_owned(), test),
            databases.unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let header = [
        "SET",
        "STATUS",
        "STARTED (UTC)",
        "STORED",
        "TESTED (UTC)",
        "DATABASES",
    ];
    say(table(&header, &[3], rows).trim_fmt())?;
    for listed in listed {
        if let Some(reason) = &listed.reason {
            say(format_args!("{}: {reason}", listed.set))?;
        }
        let manifest = listed.manifest.as_ref();
        for left_out in manifest.iter().flat_map(|manifest| &manifest.left_out) {
            say(format_args!("{}: not in the dump: {left_out}", listed.set))?;
        }
    }
    Ok(())
}
