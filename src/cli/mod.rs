//! The command line: one file a verb, and `handles`, where all of them get what they work with. It prints; the rooms below
//! do the work.

mod alerts;
mod archive;
mod archive_status;
mod archive_verify;
mod backup;
mod backup_list;
mod backup_show;
mod check;
mod check_explain;
mod check_list;
mod check_nagios;
mod check_output;
mod config_check;
mod config_show;
mod daemon;
mod dump;
mod dump_prune;
mod dump_restore;
mod dump_show;
mod dump_target;
mod dump_verify;
mod exit;
mod handles;
mod history;
mod jobs;
mod operator;
mod output;
#[cfg(test)]
mod packaged;
mod prune;
mod restore;
mod restore_test;
mod run;
mod runbook;
mod signals;
mod status;
mod timeline;
mod wait;
mod watch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::SignalKind;

use crate::config::{self, Flag};
use crate::model::may_hold_password;
use exit::Exit;
use handles::{Handles, Start};
use signals::{LEFT_THREADS, listen, told_to_end, until};

#[derive(Parser)]
#[command(
    name = "xdb",
    version,
    about = "If the primary is lost now: what do we get back, how fast, and how do we know?",
    after_help = "Exit codes: 0 good, 1 bad, 2 usage or configuration, 3 refused, 4 could not check or run, 130/143 interrupted.\n\
                  wal-push answers 0 and 1 only, wal-fetch 0, 1 and 126: PostgreSQL reads those."
)]
struct Cli {
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "XDB_CONFIG",
        hide_env_values = true
    )]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Archive one WAL file: archive_command = 'xdb wal-push "%p"'
    WalPush { path: PathBuf },
    /// Restore one WAL file: restore_command = 'xdb wal-fetch "%f" "%p"'
    WalFetch {
        /// On a live standby: every failure is 1, which PostgreSQL retries
        #[arg(long)]
        standby: bool,
        name: String,
        destination: PathBuf,
    },
    /// Take a base backup, or list what is in the repository
    #[command(subcommand)]
    Backup(backup::Verb),
    /// What waits to be archived, what the archive lacks, and who knows of it
    #[command(subcommand)]
    Archive(archive::Verb),
    /// List the timelines that concern this server, or have the cluster forget one that does not
    #[command(subcommand)]
    Timeline(timeline::Verb),
    /// Dump the databases into the bucket; list, show, verify and restore the dumps there, test one, or delete old ones
    #[command(subcommand)]
    Dump(dump::Verb),
    /// Restore a cluster for good into an empty directory, to the end of the archive or to a moment, and say what comes next
    Restore(restore::Arguments),
    /// Restore a backup into a scratch directory, recover it to the end of the archive, verify it, and measure RTO and RPO;
    /// or list the tests that were made
    RestoreTest(restore_test::Arguments),
    /// Delete the base backups and the WAL that retention does not keep, or show what would go
    Prune(prune::Arguments),
    /// What would we get back now, and how do we know?
    Status(status::Arguments),
    /// List the alerts and their history; acknowledge or silence them
    Alerts(alerts::Arguments),
    /// Look at what is watched: each check's verdict and its reason
    Check(check::Arguments),
    /// Print the runbook of a check, an alert or a procedure
    Runbook(runbook::Arguments),
    /// What runs by schedule, what came of it last, and when it runs next
    Jobs(jobs::Arguments),
    /// Run a job now, as the daemon does when it is due
    Run(run::Arguments),
    /// Wait until the database answers in the role that is wanted: the ExecStartPre of an application's unit
    Wait(Box<wait::Arguments>),
    /// Serve this node's role, run the jobs that are due, and push alerts: the service of a database node
    Daemon,
    /// See what xdb is configured to do
    #[command(subcommand)]
    Config(config_show::Verb),
}

/// Parses the command line, runs its verb, prints what went wrong, and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    if !matches!(cli.verb, Verb::Daemon) {
        crate::log::init();
    }
    let outcome = run(cli);
    outcome.unwrap_or_else(|error| exit::report(&error)).into()
}

/// Prints the help that was asked for, or what is wrong with the arguments; never one that may hold a password.
fn refuse(error: &clap::Error) -> ExitCode {
    let mut arguments = std::env::args_os().map(|it| it.to_string_lossy().into_owned());
    if error.use_stderr() && arguments.any(|argument| may_hold_password(&argument)) {
        exit::complain(
            "an argument is not understood; none is shown, because one of them may hold a password",
            Some("xdb --help; xdb wait takes a connection string with --url, without the password"),
        );
        return Exit::Usage.into();
    }
    // As Cli::parse() would. Where standard error is closed, the exit code alone tells.
    let _ = error.print();
    u8::try_from(error.exit_code()).unwrap_or(2).into()
}

fn run(cli: Cli) -> anyhow::Result<Exit> {
    let start = Start { file: cli.config };
    let none = Vec::new;
    match cli.verb {
        // main() has taken every call of these two that is not a question for help.
        Verb::WalPush { .. } | Verb::WalFetch { .. } => Ok(Exit::Usage),
        Verb::Runbook(arguments) => runbook::run(&arguments),
        Verb::Check(arguments) if !arguments.lint.is_empty() => check::lint(&arguments.lint),
        Verb::Check(arguments) => {
            let nagios = arguments.nagios;
            let ran = start.run_with_faults(async |it| check::run(arguments, it).await);
            match ran {
                Err(error) if nagios => check::cannot_begin(&error),
                ran => ran,
            }
        }
        Verb::Wait(arguments) => wait::run(&arguments, |flags| start.load(flags)),
        Verb::Status(arguments) => {
            start.run_with_faults(async |it| status::run(arguments, it).await)
        }
        Verb::Alerts(arguments) => {
            start.run_with_faults(async |it| alerts::run(arguments, it).await)
        }
        Verb::Jobs(arguments) => start.run_with_faults(async |it| jobs::run(arguments, it).await),
        Verb::Run(arguments) => match arguments.job() {
            Some(job) => start.run(none(), Some(job), async |it| run::run(job, it).await),
            None => Ok(Exit::Usage),
        },
        // Its log names what it leaves out.
        Verb::Daemon => daemon::run(Handles::new(config::load_to_serve(&start.sources())?)),
        Verb::Config(config_show::Verb::Show) => config_show::run(&start.load(none())?),
        Verb::Config(config_show::Verb::Check) => config_check::run(&start.sources()),
        Verb::Backup(verb) => start.run(verb.flags(), verb.job(), async |it| {
            backup::run(verb, it).await
        }),
        Verb::Archive(verb) => {
            start.run(verb.flags(), None, async |it| archive::run(verb, it).await)
        }
        Verb::Timeline(verb) => start.run(none(), None, async |it| timeline::run(verb, it).await),
        Verb::Prune(arguments) => start.run(none(), arguments.job(), async |it| {
            prune::run(arguments, it).await
        }),
        Verb::Dump(dump::Verb::Restore(arguments)) => {
            dump_restore::run(&arguments, &Handles::new(start.load(none())?))
        }
        Verb::Dump(verb) => start.run(none(), verb.job(), async |it| dump::run(verb, it).await),
        Verb::Restore(arguments) => {
            let handles = Handles::new(start.load(arguments.flags())?);
            let work = async {
                // A closed terminal must not end a restore of hours.
                let _heard = listen(SignalKind::hangup())?;
                restore::run(arguments, &handles).await
            };
            until(told_to_end(), work, async {}, LEFT_THREADS)
        }
        Verb::RestoreTest(arguments) => start.run(arguments.flags(), None, async |it| {
            restore_test::run(arguments, it).await
        }),
    }
}

fn repository_flag(given: Option<&str>) -> Vec<Flag> {
    let flag = |value: &str| Flag {
        key: "archive.repository",
        value: value.to_owned(),
        flag: "--repository",
    };
    given.map(flag).into_iter().collect()
}
