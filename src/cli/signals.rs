//! What ends a verb early, and the runtime that it runs on.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::exit::Exit;

/// Runs `work` until it ends or a signal does; what is dropped then kills its children and removes its files.
///
/// What cannot be cleaned up by dropping, `clean_up` does after a signal.
pub(super) fn until_interrupted(
    work: impl Future<Output = anyhow::Result<Exit>>,
    clean_up: impl Future<Output = ()>,
) -> anyhow::Result<Exit> {
    until(interrupted(), work, clean_up, LEFT_THREADS)
}

/// As much as the main thread has.
const THREAD_STACK: usize = 8 << 20;

/// For threads that still read or write a file when all is done: one may hang in a volume that has stalled.
pub(super) const LEFT_THREADS: Duration = Duration::from_secs(5);

/// The same where other signals mean other things, and with so much time for threads that are left.
pub(super) fn until(
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
pub(super) async fn interrupted() -> anyhow::Result<Exit> {
    // A closed terminal must not leave a cluster's copy behind either.
    let mut hang_up = listen(SignalKind::hangup())?;
    tokio::select! {
        exit = told_to_end() => exit,
        _ = hang_up.recv() => Ok(Exit::Terminated),
    }
}

/// The same without SIGHUP.
pub(super) async fn told_to_end() -> anyhow::Result<Exit> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(tokio::select! {
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    })
}

pub(super) fn listen(kind: SignalKind) -> anyhow::Result<Signal> {
    signal(kind).context("cannot listen for signals")
}
