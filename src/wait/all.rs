//! Waits for several targets: ready when all of them are.

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::{Signal, WaitOptions, WaitOutcome, until_ready};

/// How waiting for all of them ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitEnd {
    Ready,
    TimedOut,
    /// One refused permanently, which ended the wait for the others.
    Refused,
}

/// Waits until each of `targets` is ready; `heard` gets the index of a target and its new signal, `None` once it is ready.
///
/// Where one was late, all are probed again: the first ones may have failed meanwhile.
pub(crate) async fn all_ready(
    targets: &[WaitOptions],
    heard: impl Fn(usize, Option<&Signal>),
) -> WaitEnd {
    let begin = Instant::now();
    loop {
        let round: Vec<WaitOptions> = targets.iter().map(|target| rest(target, begin)).collect();
        let mut waited = false;
        let mut running: FuturesUnordered<_> = round
            .iter()
            .enumerate()
            .map(async |(index, target)| {
                let mut delayed = false;
                let outcome = until_ready(target, |signal| {
                    delayed = true;
                    heard(index, Some(signal));
                });
                (index, outcome.await, delayed)
            })
            .collect();
        let mut timed_out = false;
        while let Some((index, outcome, delayed)) = running.next().await {
            waited |= delayed;
            match outcome {
                WaitOutcome::Ready => heard(index, None),
                WaitOutcome::TimedOut(_) => timed_out = true,
                WaitOutcome::Refused(_) => return WaitEnd::Refused,
            }
        }
        if timed_out {
            return WaitEnd::TimedOut;
        }
        if !waited || targets.len() == 1 {
            return WaitEnd::Ready;
        }
    }
}

/// What is left of the time since `begin`.
fn rest(target: &WaitOptions, begin: Instant) -> WaitOptions {
    WaitOptions {
        timeout: target.timeout.saturating_sub(begin.elapsed()),
        ..target.clone()
    }
}
