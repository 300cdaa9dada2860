//! `xdb restore-test`: proves that a backup can be restored, and measures how long that takes and what would be lost.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::history;
use super::output::{say, show_step, table};
use crate::config::{self, Flag};
use crate::jobs;
use crate::restore::{
    self, Setup, SqlCheck, Step, TestLevel, TestOptions, TestResult, Until, UntilError, is_explicit,
};

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the restore tests that were made, on whatever node, the newest first
    History(history::Arguments),
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Another repository than the configured one
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    repository: Option<String>,
    /// The backup to restore, the newest where not given
    #[arg(long, value_name = "NAME")]
    backup: Option<String>,
    /// How much of the restored cluster to verify, instead of restore_test.level
    #[arg(long, value_enum)]
    level: Option<TestLevel>,
    /// The directory of *.sql files that check the restored data, instead of restore_test.assertions
    #[arg(long, value_name = "DIR")]
    assertions: Option<PathBuf>,
    /// Keep the restored cluster, its server shut down, and print where it is and how to start and remove it
    #[arg(long)]
    keep: bool,
    /// Stop at a time with its zone, at an LSN or at a restore point, and not at the end of the archive
    #[arg(long, value_name = "TIME|LSN|name:NAME", allow_hyphen_values = true)]
    until: Option<String>,
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
    pub(crate) fn flags(&self) -> Vec<Flag> {
        super::repository_flag(self.repository.as_deref())
    }

    /// Whether this is the job's own test: the newest backup in the configured repository, to the end of the archive, at the
    /// configured level. No other test may end the job's alert or count as its success.
    fn is_the_job(&self, settings: &config::RestoreTest) -> bool {
        let configured = TestLevel::named(&settings.level);
        self.repository.is_none()
            && self.backup.is_none()
            && self.until.is_none()
            && self.level.is_none_or(|level| level == configured)
            && self.assertions.is_none()
            && !self.keep
            && self.sql.is_empty()
    }

    /// Why the arguments contradict each other, and what to do.
    fn contradiction(&self, settings: &config::RestoreTest) -> Option<(String, &'static str)> {
        let directory = self.assertions.as_ref()?;
        let level = TestLevel::named(&settings.level);
        if !directory.is_dir() {
            let shown = directory.display();
            return Some((
                format!("--assertions {shown}: there is no such directory"),
                "name a directory of *.sql files; packaging/restore-checks has examples",
            ));
        }
        (self.level.unwrap_or(level) < TestLevel::Full).then(|| {
            (
                "--assertions are asked at level full only".to_owned(),
                "give --level full, too",
            )
        })
    }

    fn options(&self, postgres: &config::Postgres) -> Result<TestOptions, UntilError> {
        let database = self.database.as_ref().unwrap_or(&postgres.database);
        let sql = self.sql.iter().map(|query| SqlCheck {
            database: database.clone(),
            query: query.clone(),
        });
        let text = self.until.as_deref();
        let until: Option<Until> = text.map(str::parse).transpose()?;
        Ok(TestOptions {
            is_guess: text
                .zip(until.as_ref())
                .is_some_and(|(text, until)| !is_explicit(text, until)),
            backup: self.backup.clone(),
            level: self.level,
            assertions: self.assertions.clone(),
            keep: self.keep,
            until,
            sql: sql.collect(),
        })
    }
}

pub(crate) async fn run(arguments: Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let config = handles.config();
    if let Some(Verb::History(arguments)) = &arguments.verb {
        return history::run(arguments, handles).await;
    }
    let options = arguments.options(&config.postgres)?;
    if let Some((reason, hint)) = arguments.contradiction(&config.restore_test) {
        complain(&reason, Some(hint));
        return Ok(Exit::Usage);
    }
    let mut progress = |step: &Step| show_step(step);
    let report = if arguments.is_the_job(&config.restore_test) {
        let test = jobs::restore_test::run(&handles.loaded, &handles.repository, &mut progress);
        handles.run_once(&jobs::restore_test::JOB, test).await
    } else {
        match handles.repository.get().await {
            Err(error) => {
                let configured = TestLevel::named(&config.restore_test.level);
                TestResult::not_begun(options.level.unwrap_or(configured), error.into())
            }
            Ok(repository) => {
                let setup = Setup::new(&handles.loaded, repository);
                match arguments.repository {
                    None => restore::prove(&setup, &options, &mut progress).await,
                    // Another repository keeps its own proofs.
                    Some(_) => restore::run(&setup, &options, &mut progress).await,
                }
            }
        }
    };
    if arguments.json {
        say(serde_json::to_string_pretty(&report)?)?;
    } else {
        print(&report, &config.postgres)?;
    }
    if let Some(reason) = &report.reason {
        complain(reason, report.hint.as_deref());
    }
    Ok(report.conclusion.into())
}

fn print(report: &TestResult, postgres: &config::Postgres) -> std::io::Result<()> {
    say(format_args!(
        "{}: restore test of {}, level {}",
        report.conclusion.word(),
        report.backup.as_deref().unwrap_or("no backup"),
        report.level.word()
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
    if let Some(conditions) = report.conditions.filter(|_| report.rto_secs.is_some()) {
        say(conditions.network.description())?;
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
    if let Some(kept) = report.kept.as_ref().map(|path| path.display()) {
        let pg_ctl = postgres.bin_directory.join("pg_ctl");
        say(format_args!(
            "kept in {kept}\n  start   {} -D {kept}/data -l {kept}/postgresql.log start\n  \
             ask     psql -h {kept}/socket -U {}\n  remove  rm -r {kept}, once it is stopped",
            pg_ctl.display(),
            postgres.user
        ))?;
    }
    Ok(())
}

/// Cuts a long query, which the JSON has in full.
fn shortened(name: &str) -> String {
    const WIDTH: usize = 40;
    let cut = name.starts_with("sql: ") && name.chars().count() > WIDTH;
    if cut {
        name.chars().take(WIDTH - 1).chain(['…']).collect()
    } else {
        name.to_owned()
    }
}
