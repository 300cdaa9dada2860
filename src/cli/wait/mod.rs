//! `xdb wait`: may the application start? The ExecStartPre of its unit.

mod options;
#[cfg(test)]
mod options_tests;
mod report;
mod variables;

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use clap::Args;

use super::exit::Exit;
use crate::config::{Flag, Loaded};
use crate::wait::{self, WaitEnd, WaitOptions, WantedRole};
use report::{Style, WaitReport};

/// Without `Debug`: a connection string may hold a password.
#[derive(Args)]
#[command(
    after_help = "Exit codes: 0 ready, 1 timed out, 2 usage or configuration, 3 refused for good, 4 COMMAND could not be run, 130/143 interrupted.\n\
                  The password comes from --password-file, else from postgres.password or PGPASSWORD (also in /etc/environment), else from PGPASSFILE or ~/.pgpass.\n\
                  In a unit give TimeoutStartSec more seconds than --timeout: systemd's default is 90."
)]
pub(crate) struct Arguments {
    /// How long to wait, such as 150, 150s or 2m; 0 makes one attempt
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// How long one attempt may take, the query included
    #[arg(long, value_name = "TIME")]
    attempt_timeout: Option<String>,
    /// How long the same refusal (password, role, database, TLS) must last to be final; 0 is at once
    #[arg(long, value_name = "TIME")]
    fail_fast_after: Option<String>,
    /// What the server must be [default: primary, or what target_session_attrs says]; a replica is asked for at its own port
    #[arg(long, value_enum)]
    role: Option<WantedRole>,
    /// Several of them: ready when all are
    #[arg(long = "target", value_name = "ROLE", value_enum, conflicts_with_all = ["role", "port", "url"])]
    targets: Vec<WantedRole>,
    /// The host that the application connects to, or several with commas between
    #[arg(long)]
    host: Option<String>,
    #[arg(long)]
    port: Option<String>,
    #[arg(long, alias = "database", value_name = "NAME")]
    dbname: Option<String>,
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// disable, allow, prefer, require, verify-ca or verify-full
    #[arg(long, value_name = "MODE")]
    sslmode: Option<String>,
    /// PEM certificates that the server is trusted by, or "system"; unset, ~/.postgresql/root.crt where it exists
    #[arg(long, value_name = "FILE")]
    sslrootcert: Option<String>,
    /// A file with nothing but the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// All of it as the application has it, without the password: a URI, or libpq's keyword=value form
    #[arg(long, conflicts_with_all = ["host", "port", "dbname", "user", "sslmode", "sslrootcert"])]
    url: Option<String>,
    /// Say nothing but why it ended badly
    #[arg(long)]
    quiet: bool,
    /// At the end, one JSON object on standard output
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// What to become once ready
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// `load` reads the configuration with flags laid over it.
pub(crate) fn run(
    arguments: &Arguments,
    load: impl Fn(Vec<Flag>) -> anyhow::Result<Loaded>,
) -> anyhow::Result<Exit> {
    let targets = options::targets(arguments, load)?;
    let style = match (arguments.quiet, arguments.json) {
        (true, _) => Style::Quiet,
        (_, true) => Style::Json,
        _ => Style::Text,
    };
    let report = WaitReport::new(&targets, style);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let exit = runtime.block_on(async {
        tokio::select! {
            exit = wait(&targets, &report) => exit,
            exit = super::signals::interrupted() => exit.inspect(|_| report.interrupted()),
            () = report.beat() => unreachable!("it runs until it is dropped"),
        }
    });
    // Resolving a name runs on a thread that nothing can stop, and must not hold up the end.
    runtime.shutdown_background();
    match (exit?, arguments.command.split_first()) {
        (Exit::Good, Some((program, rest))) => {
            let error = Command::new(program).args(rest).exec();
            Err(error).with_context(|| format!("cannot run {}", program.to_string_lossy()))
        }
        (exit, _) => Ok(exit),
    }
}

async fn wait(targets: &[WaitOptions], report: &WaitReport<'_>) -> anyhow::Result<Exit> {
    let ended = wait::all_ready(targets, |index, signal| report.show(index, signal)).await;
    report.ended(ended)?;
    Ok(match ended {
        WaitEnd::Ready => Exit::Good,
        WaitEnd::TimedOut => Exit::Bad,
        WaitEnd::Refused => Exit::Refused,
    })
}
