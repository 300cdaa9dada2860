//! After a signal: what an interrupted job left unfinished in the buckets is given up.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::CLEAN_UP;
use crate::config::Config;
use crate::jobs::{CleanUpError, JOBS};
use crate::log;
use crate::repository::RepositoryHandle;

/// After a signal: gives up what an interrupted backup or dump left unfinished in the buckets.
///
/// Requests from before the signal are still answered; later ones wait in systemd's socket.
pub(crate) async fn clean_up(config: &Config, repository: &RepositoryHandle) {
    const LAST_ANSWERS: Duration = Duration::from_millis(300);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    let (cleaned, ()) = tokio::join!(
        timeout(CLEAN_UP, clean_up_all(config, repository)),
        sleep(LAST_ANSWERS)
    );
    if cleaned.is_err() {
        tracing::warn!(
            "an unfinished upload may be left in a bucket; the next backup or dump gives it up"
        );
    }
}

async fn clean_up_all(config: &Config, repository: &RepositoryHandle) {
    for clean_up in JOBS
        .into_iter()
        .rev()
        .filter_map(|job| job.clean_up.as_ref())
    {
        let left = until_unlocked(|| (clean_up.run)(config, repository)).await;
        if let Err(error) = left {
            let (may_be_left, later) = (clean_up.may_be_left, clean_up.later);
            tracing::warn!("{may_be_left}: {}; {later}", log::chain(&error));
        }
    }
}

/// A run that is being stopped still holds its lock for a moment, and a person's own run for long. A lock that cannot be
/// used at all is given up at once: the next daemon waits for this one's end.
async fn until_unlocked<F: Future<Output = Result<(), CleanUpError>>>(
    clean_up: impl Fn() -> F,
) -> Result<(), CleanUpError> {
    const ATTEMPTS: u32 = 10;
    const PAUSE: Duration = Duration::from_millis(200);
    for _ in 1..ATTEMPTS {
        match clean_up().await {
            Err(error) if !error.is_final() => sleep(PAUSE).await,
            ended => return ended,
        }
    }
    clean_up().await
}
