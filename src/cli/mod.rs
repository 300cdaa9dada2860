//! The command line: one file a verb. It prints; the rooms below do the work.

mod archive;
mod backup;
mod backup_list;
mod backup_show;
mod check;
mod config_check;
mod config_show;
mod daemon;
mod dump;
mod exit;
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
mod status;
mod timeline;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Flag, Loaded, Sources};
use crate::model::may_hold_password;
use exit::Exit;

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
    /// Dump the databases into the bucket, list what dumps are there, or restore one and compare it
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
    /// Look at what is watched: each check's verdict and its reason
    Check(check::Arguments),
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
    let load = |flags: Vec<Flag>| -> anyhow::Result<Loaded> {
        let mut sources = Sources::from_process(cli.config.clone());
        sources.flags = flags;
        let loaded = config::load(&sources)?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        Ok(loaded)
    };
    // What shows faults must not end at one that it could show.
    let load_to_serve = || -> anyhow::Result<Loaded> {
        let loaded = config::load_to_serve(&Sources::from_process(cli.config.clone()))?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        for fault in &loaded.faults {
            tracing::warn!("{} (HINT: {})", fault.message, fault.hint);
        }
        Ok(loaded)
    };
    match cli.verb {
        // main() has taken every call of these two that is not a question for help.
        Verb::WalPush { .. } | Verb::WalFetch { .. } => Ok(Exit::Usage),
        Verb::Check(arguments) => {
            let loaded = load_to_serve()?;
            until_interrupted(check::run(arguments, &loaded), async {})
        }
        Verb::Wait(arguments) => wait::run(&arguments, load),
        Verb::Status(arguments) => {
            let loaded = load_to_serve()?;
            until_interrupted(status::run(arguments, &loaded), async {})
        }
        Verb::Jobs(arguments) => {
            let loaded = load_to_serve()?;
            until_interrupted(jobs::run(arguments, &loaded), async {})
        }
        Verb::Run(arguments) => {
            let loaded = load(Vec::new())?;
            let Some(job) = arguments.job() else {
                return Ok(Exit::Usage);
            };
            until_interrupted(run::run(job, &loaded), run::clean_up(job, &loaded))
        }
        // Its log names what it leaves out.
        Verb::Daemon => daemon::run(&config::load_to_serve(&Sources::from_process(cli.config))?),
        Verb::Config(config_show::Verb::Show) => config_show::run(&load(Vec::new())?),
        Verb::Config(config_show::Verb::Check) => {
            config_check::run(&Sources::from_process(cli.config))
        }
        Verb::Backup(verb) => {
            let loaded = load(verb.flags())?;
            let pushes = matches!(verb, backup::Verb::Push { .. });
            until_interrupted(backup::run(verb, &loaded), async {
                if pushes {
                    run::clean_up(&crate::jobs::base_backup::JOB, &loaded).await;
                }
            })
        }
        Verb::Archive(verb) => {
            let loaded = load(verb.flags())?;
            until_interrupted(archive::run(verb, &loaded), async {})
        }
        Verb::Timeline(verb) => {
            let loaded = load(Vec::new())?;
            until_interrupted(timeline::run(verb, &loaded), async {})
        }
        Verb::Prune(arguments) => {
            let loaded = load(Vec::new())?;
            let deletes = arguments.deletes();
            until_interrupted(prune::run(arguments, &loaded), async {
                if deletes {
                    run::clean_up(&crate::jobs::prune::JOB, &loaded).await;
                }
            })
        }
        Verb::Dump(verb) => {
            let loaded = load(Vec::new())?;
            let pushes = matches!(verb, dump::Verb::Push { .. });
            until_interrupted(dump::run(verb, &loaded), async {
                if pushes {
                    run::clean_up(&crate::jobs::dump::JOB, &loaded).await;
                }
            })
        }
        Verb::Restore(arguments) => {
            let loaded = load(arguments.flags())?;
            let work = async {
                // A closed terminal must not end a restore of hours.
                let _heard = listen(SignalKind::hangup())?;
                restore::run(arguments, &loaded).await
            };
            until(told_to_end(), work, async {}, LEFT_THREADS)
        }
        Verb::RestoreTest(arguments) => {
            let loaded = load(arguments.flags())?;
            until_interrupted(restore_test::run(arguments, &loaded), async {})
        }
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

/// Runs `work` until it ends or a signal does; what is dropped then kills its children and removes its files.
///
/// What cannot be cleaned up by dropping, `clean_up` does after a signal.
fn until_interrupted(
    work: impl Future<Output = anyhow::Result<Exit>>,
    clean_up: impl Future<Output = ()>,
) -> anyhow::Result<Exit> {
    until(interrupted(), work, clean_up, LEFT_THREADS)
}

/// As much as the main thread has.
const THREAD_STACK: usize = 8 << 20;

/// For threads that still read or write a file when all is done: one may hang in a volume that has stalled.
const LEFT_THREADS: Duration = Duration::from_secs(5);

/// The same where other signals mean other things, and with so much time for threads that are left.
fn until(
    signal: impl Future<Output = anyhow::Result<Exit>>,
    work: impl Future<Output = anyhow::Result<Exit>>,
    clean_up: impl Future<Output = ()>,
    left_threads: Duration,
) -> anyhow::Result<Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // A job's future is large, and more so without optimization; the default of 2 MiB is too small for it.
        .thread_stack_size(THREAD_STACK)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let outcome = runtime.block_on(async {
        let exit = tokio::select! {
            // In this order: signals are listened for before any work begins.
            biased;
            exit = signal => exit?,
            outcome = work => return outcome,
        };
        clean_up.await;
        Ok(exit)
    });
    runtime.shutdown_timeout(left_threads);
    outcome
}

/// Completes when a signal asks this process to end, with the exit code for it.
async fn interrupted() -> anyhow::Result<Exit> {
    // A closed terminal must not leave a cluster's copy behind either.
    let mut hang_up = listen(SignalKind::hangup())?;
    tokio::select! {
        exit = told_to_end() => exit,
        _ = hang_up.recv() => Ok(Exit::Terminated),
    }
}

/// The same without SIGHUP.
async fn told_to_end() -> anyhow::Result<Exit> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    })
}

fn listen(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot listen for signals")
}
