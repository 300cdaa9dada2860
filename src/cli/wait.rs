//! `xdb wait`: may the application start? The ExecStartPre of its unit.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::exit::{Exit, complain};
use crate::config::{Flag, Loaded};
use crate::postgres::Target;
use crate::wait::{self, Options, Outcome, Signal, Wanted};

/// Of one attempt, the query included: PgBouncer may queue a client for minutes.
const ATTEMPT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 ready, 1 timed out, 2 usage or configuration, 3 refused for good, 130/143 interrupted.\n\
                  The password comes from postgres.password, PGPASSWORD (also in /etc/environment), PGPASSFILE or ~/.pgpass.\n\
                  In a unit give TimeoutStartSec more seconds than --timeout: systemd's default is 90."
)]
pub struct Arguments {
    /// How long to wait, such as 150, 150s or 2m
    #[arg(long, value_name = "TIME")]
    timeout: Option<String>,
    /// The host that the application connects to
    #[arg(long)]
    host: Option<String>,
    #[arg(long)]
    port: Option<String>,
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// What the server must be
    #[arg(long, value_enum, default_value_t = Wanted::Primary)]
    role: Wanted,
    /// How long the same refusal (password, role, database) must last to be final
    #[arg(long, value_name = "TIME")]
    fail_fast_after: Option<String>,
}

impl Arguments {
    /// Flags that are configuration.
    pub fn flags(&self) -> Vec<Flag> {
        let given = [
            (
                "wait.timeout",
                self.timeout.as_deref().map(seconds),
                "--timeout",
            ),
            ("wait.host", self.host.clone(), "--host"),
            ("wait.port", self.port.clone(), "--port"),
            ("wait.database", self.database.clone(), "--database"),
            ("wait.user", self.user.clone(), "--user"),
            (
                "wait.fail_fast_after",
                self.fail_fast_after.as_deref().map(seconds),
                "--fail-fast-after",
            ),
        ];
        let flag = |(key, value, flag): (_, Option<String>, _)| {
            value.map(|value| Flag { key, value, flag })
        };
        given.into_iter().filter_map(flag).collect()
    }
}

/// A bare number counts seconds.
fn seconds(text: &str) -> String {
    let bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if bare {
        format!("{text}s")
    } else {
        text.to_owned()
    }
}

pub fn run(arguments: &Arguments, loaded: &Loaded) -> anyhow::Result<Exit> {
    let options = options(arguments, loaded);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    let exit = runtime.block_on(async {
        tokio::select! {
            exit = wait(&options) => Ok(exit),
            exit = super::interrupted() => exit,
        }
    });
    // Resolving a name runs on a thread that nothing can stop, and must not hold up the end.
    runtime.shutdown_background();
    exit
}

fn options(arguments: &Arguments, loaded: &Loaded) -> Options {
    let settings = &loaded.config.wait;
    let mut target = Target {
        host: settings.host.clone(),
        port: settings.port,
        user: settings.user.clone(),
        password: loaded.config.postgres.password.clone(),
        database: settings.database.clone(),
        connect_timeout: ATTEMPT,
    };
    if target.password.is_none() {
        let variable = |name| std::env::var_os(name).map(PathBuf::from);
        let file = wait::passfile(variable("PGPASSFILE"), variable("HOME"));
        let found = file.map_or(Ok(None), |file| wait::password_in(&file, &target));
        target.password = found.unwrap_or_else(|why| {
            tracing::warn!("{why}");
            None
        });
    }
    Options {
        target,
        wanted: arguments.role,
        timeout: settings.timeout,
        fail_fast_after: settings.fail_fast_after,
    }
}

async fn wait(options: &Options) -> Exit {
    let place = format!("{}:{}", options.target.host, options.target.port);
    let started = std::time::Instant::now();
    let changed = |signal: &Signal| complain(&format!("waiting for {place}: {signal}"), None);
    let outcome = wait::until_ready(options, changed).await;
    let secs = started.elapsed().as_secs_f64();
    let last = |how: &str, signal: &Signal| {
        complain(
            &format!("{place} {how} after {secs:.1} s: {signal} (runbook: runbooks/wait.md)"),
            None,
        );
    };
    match outcome {
        Outcome::Ready => {
            eprintln!("xdb: {place} is ready after {secs:.1} s");
            Exit::Good
        }
        Outcome::TimedOut(signal) => {
            last("is not ready", &signal);
            Exit::Bad
        }
        Outcome::Refused(signal) => {
            last("refuses for good", &signal);
            Exit::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_bare_number_counts_seconds() {
        for (text, read) in [
            ("150", "150s"),
            ("150s", "150s"),
            ("2m", "2m"),
            ("", ""),
            ("-1", "-1"),
        ] {
            assert_eq!(seconds(text), read);
        }
    }
}
