//! How xdb speaks: tracing to standard error or, from the daemon, to the platform's log files; errors with their causes.

mod files;
mod json;
mod printable;

use std::io::IsTerminal;
use std::sync::Arc;

use jiff::Timestamp;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

pub(crate) use files::{DIRECTORY, Files};
pub(crate) use printable::{printable, to_stderr};

/// Sends tracing to standard error: warnings, or what `XDB_LOG` asks for (such as `debug`).
pub(crate) fn init() {
    let filter = EnvFilter::try_from_env("XDB_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| printable::Coloured(std::io::stderr()))
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Sends the daemon's tracing to the log files and to standard output: text for a person at a terminal, JSON otherwise.
pub(crate) fn init_daemon(hostname: &str) -> Arc<Files> {
    let filter =
        EnvFilter::try_from_env("XDB_LOG").unwrap_or_else(|_| EnvFilter::new("warn,xdb=info"));
    let at_terminal = std::io::stdout().is_terminal();
    let files = Arc::new(Files::new(DIRECTORY));
    let json = json::JsonLayer {
        hostname: hostname.to_owned(),
        files: files.clone(),
        to_stdout: !at_terminal,
    };
    let text = at_terminal.then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(|| printable::Coloured(std::io::stdout()))
            .boxed()
    });
    tracing_subscriber::registry()
        .with(filter)
        .with(json)
        .with(text)
        .init();
    files
}

/// Puts a failure into `component`'s log file, for a process that is without tracing.
///
/// What cannot be written is left out: the caller has said it elsewhere.
pub(crate) fn failure(component: &str, hostname: &str, message: String) {
    // A file that root makes would be closed to the database's user.
    if rustix::process::geteuid().is_root() {
        return;
    }
    let fields = json::Fields::message(message);
    let line = json::line(
        Timestamp::now(),
        &Level::ERROR,
        component,
        hostname,
        &fields,
    );
    Files::new(DIRECTORY).write(component, &line);
}

/// `hint`, each of its lines marked the way PostgreSQL marks them.
pub(crate) fn hints(hint: &str) -> String {
    hint.lines().map(|line| format!("HINT: {line}\n")).collect()
}

/// `error` and its causes in one line, each once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
