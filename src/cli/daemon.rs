//! `xdb daemon`: the service of a database node; a signal stops it in order.

use std::io::IsTerminal;
use std::pin::pin;

use tokio::signal::unix::SignalKind;

use super::exit::Exit;
use super::handles::Handles;
use super::signals::{interrupted, listen, told_to_end, until};
use crate::daemon;
use crate::log::{self, Files};

pub(crate) fn run(handles: Handles) -> anyhow::Result<Exit> {
    let Handles { loaded, repository } = handles;
    let files = log::init_daemon(&loaded.config.node.hostname);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    for fault in &loaded.faults {
        tracing::error!("left out: {} (HINT: {})", fault.message, fault.hint);
    }
    let serve = async {
        daemon::run(loaded.clone(), &repository).await?;
        Ok(Exit::Good)
    };
    let ended = until(
        signals(&files),
        serve,
        daemon::clean_up(&loaded.config, &repository),
        daemon::CLEAN_UP,
    );
    match &ended {
        Ok(_) => tracing::info!("the daemon ends"),
        Err(error) => tracing::error!("the daemon ends: {}", log::chain(error.as_ref())),
    }
    ended
}

/// Completes when a signal asks the daemon to end. SIGHUP says that the log files were rotated.
async fn signals(files: &Files) -> anyhow::Result<Exit> {
    if std::io::stdout().is_terminal() {
        // There it says that the terminal is gone.
        return interrupted().await;
    }
    let mut rotated = listen(SignalKind::hangup())?;
    let mut ended = pin!(told_to_end());
    loop {
        tokio::select! {
            exit = &mut ended => return exit,
            _ = rotated.recv() => {
                files.reopen();
                tracing::info!("the log files are reopened");
            }
        }
    }
}
