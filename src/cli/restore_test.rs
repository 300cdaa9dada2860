//! `xdb restore-test`: would we get it back, how fast, and how much would be lost?

use clap::{Args, Subcommand};

use super::exit::{Exit, complain};
use super::history;
use super::output::{say, show_step, table};
use crate::config::{Config, Flag, Loaded};
use crate::daemon;
use crate::jobs::{self, Job};
use crate::restore::{self, Options, Report, SqlCheck, Step};

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the restore tests that were made, on whatever node, the newest first
    History(history::Arguments),
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Another repository than the configured one
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    repository: Option<String>,
    /// The backup to restore, the newest where not given
    #[arg(long, value_name = "NAME")]
    backup: Option<String>,
    /// A query that must answer true in the restored cluster; may be given again
    #[arg(long, value_name = "QUERY")]
    sql: Vec<String>,
    /// The database that --sql asks
    #[arg(long, value_name = "NAME", requires = "sql")]
    database: Option<String>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Flags that are configuration.
    pub fn flags(&self) -> Vec<Flag> {
        super::repository_flag(self.repository.as_deref())
    }

    /// Only a test of the newest backup in the configured repository, and of nothing more, says what the job would: no
    /// other may end its alert or count as its success.
    fn is_the_job(&self) -> bool {
        self.repository.is_none() && self.backup.is_none() && self.sql.is_empty()
    }

    fn options(&self, config: &Config) -> Options {
        let database = self.database.as_ref().unwrap_or(&config.postgres.database);
        let sql = self.sql.iter().map(|query| SqlCheck {
            database: database.clone(),
            query: query.clone(),
        });
        Options {
            backup: self.backup.clone(),
            sql: sql.collect(),
        }
    }
}

pub async fn run(arguments: Arguments, loaded: &Loaded) -> anyhow::Result<Exit> {
    if let Some(Verb::History(arguments)) = &arguments.verb {
        return history::run(arguments, loaded).await;
    }
    let mut progress = |step: &Step| show_step(step.name, step.secs, step.bytes);
    let report = if arguments.is_the_job() {
        let test = jobs::restore_test(loaded, &mut progress);
        daemon::run_once(loaded, Job::RestoreTest, test).await
    } else if arguments.repository.is_none() {
        restore::prove(loaded, &arguments.options(&loaded.config), &mut progress).await
    } else {
        // Of another repository, which keeps its own proofs.
        restore::run(loaded, &arguments.options(&loaded.config), &mut progress).await
    };
    if arguments.json {
        say(serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report)?;
    }
    if let Some(reason) = &report.reason {
        complain(reason, report.hint.as_deref());
    }
    Ok(report.conclusion.into())
}

fn print(report: &Report) -> std::io::Result<()> {
    say(format_args!(
        "{}: restore test of {}",
        report.conclusion.word(),
        report.backup.as_deref().unwrap_or("no backup")
    ))?;
    if let (Some(lsn), Some(timeline)) = (report.recovered_lsn, report.timeline) {
        let commit = report.recovered_to.map_or_else(
            || "no commit in the WAL".to_owned(),
            |at| format!("last commit {}", at.strftime("%F %T UTC")),
        );
        say(format_args!(
            "recovered to {lsn} on timeline {timeline}, {commit}"
        ))?;
    }
    let seconds = |secs: Option<f64>| {
        secs.map_or_else(|| "unknown".to_owned(), |secs| format!("{secs:.1} s"))
    };
    say(format_args!(
        "RTO {}, RPO {}",
        seconds(report.rto_secs),
        seconds(report.rpo_secs)
    ))?;
    let rows = report.verifications.iter().map(|verification| {
        let reason = verification.verdict.reason().unwrap_or_default().to_owned();
        vec![
            shortened(&verification.name),
            verification.verdict.word().to_owned(),
            reason,
        ]
    });
    if !report.verifications.is_empty() {
        say(table(&["VERIFICATION", "VERDICT", "REASON"], &[], rows).trim_fmt())?;
    }
    Ok(())
}

/// A query is named in full in the JSON; on a screen its beginning tells it.
fn shortened(name: &str) -> String {
    const WIDTH: usize = 40;
    let cut = name.chars().count() > WIDTH;
    if cut {
        name.chars().take(WIDTH - 1).chain(['…']).collect()
    } else {
        name.to_owned()
    }
}
