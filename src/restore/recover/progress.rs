//! Progress messages of a long restore, so that an operator can tell a slow restore from one that hangs.

use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::restore::scratch::{Scratch, free_bytes};

/// Short enough to watch, and a log of hours stays short.
const EVERY: Duration = Duration::from_secs(20);

/// Prints one message.
pub(crate) type OnMessage<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Runs `work`, and reports its progress, as `wording` words it, every 20 s until it ends.
async fn with_progress<T>(
    work: impl Future<Output = T>,
    notify: OnMessage<'_>,
    wording: impl Fn(Duration) -> String,
) -> T {
    let began = Instant::now();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is due at once.
    ticks.tick().await;
    tokio::pin!(work);
    loop {
        tokio::select! {
            ended = &mut work => return ended,
            _ = ticks.tick() => notify(&wording(began.elapsed())),
        }
    }
}

/// Runs `fetch`, which writes about `bytes` to the disk.
pub(crate) async fn report_fetch<T>(
    fetch: impl Future<Output = T>,
    scratch: &Scratch,
    bytes: u64,
    notify: OnMessage<'_>,
) -> T {
    let free = |path: &Path| free_bytes(path).unwrap_or_default();
    let before = free(scratch.path());
    let wording = |elapsed: Duration| {
        // An estimate: other writers on the volume are counted, too.
        let written = ByteSize(before.saturating_sub(free(scratch.path())));
        let (all, secs) = (ByteSize(bytes), elapsed.as_secs());
        format!("fetching: about {written} of {all} are on the disk after {secs} s")
    };
    with_progress(fetch, notify, wording).await
}

/// Runs `recovery`, up to the segment `last`.
pub(crate) async fn report_recovery<T>(
    recovery: impl Future<Output = T>,
    scratch: &Scratch,
    last: &str,
    notify: OnMessage<'_>,
) -> T {
    let wording = |elapsed: Duration| {
        if scratch.has_opened() {
            let secs = elapsed.as_secs();
            return format!("recovered: waiting for the server to accept a login, after {secs} s");
        }
        let log = std::fs::read_to_string(scratch.log()).unwrap_or_default();
        let (at, secs) = (last_restored(&log).unwrap_or("none yet"), elapsed.as_secs());
        format!("replaying: segment {at}, the last is {last}, after {secs} s")
    };
    with_progress(recovery, notify, wording).await
}

/// The segment that PostgreSQL restored last.
fn last_restored(log: &str) -> Option<&str> {
    let restored = |line: &'_ str| line.contains("restored log file");
    let line = log.lines().rev().find(|line| restored(line))?;
    line.split('"').nth(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn the_log_tells_how_far_a_replay_has_come() {
        let log = "LOG:  restored log file \"000000010000000000000003\" from archive\n\
                   LOG:  restored log file \"000000010000000000000004\" from archive\n\
                   LOG:  consistent recovery state reached at 0/4000028\n";
        assert_eq!(last_restored(log), Some("000000010000000000000004"));
        assert_eq!(last_restored("LOG:  starting\n"), None);
    }

    #[test]
    fn short_work_gives_no_signs() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let messages = Mutex::new(0);
        let notify = |_: &str| *messages.lock().unwrap() += 1;
        runtime.block_on(with_progress(async {}, &notify, |_| String::new()));
        assert_eq!(*messages.lock().unwrap(), 0);
    }
}
