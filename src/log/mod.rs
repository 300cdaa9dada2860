//! How xdb speaks: tracing to standard error, and errors with their causes.

mod json;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Sends tracing to standard error: warnings, or what `XDB_LOG` asks for (such as `debug`).
pub fn init() {
    let filter = EnvFilter::try_from_env("XDB_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Sends the daemon's tracing to standard output: text for a person at a terminal, the platform's JSON otherwise.
pub fn init_daemon(hostname: &str) {
    let filter = EnvFilter::try_from_env("XDB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    if std::io::stdout().is_terminal() {
        tracing_subscriber::fmt().with_env_filter(filter).init();
    } else {
        let layer = json::JsonLayer::new(hostname, std::io::stdout);
        tracing_subscriber::registry()
            .with(filter)
            .with(layer)
            .init();
    }
}

/// `hint`, each of its lines marked the way PostgreSQL marks them.
pub fn hints(hint: &str) -> String {
    hint.lines().map(|line| format!("HINT: {line}\n")).collect()
}

/// `error` and its causes in one line, each once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
