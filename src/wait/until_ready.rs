//! Dials until the server is ready, refuses for good, or time is up.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Wanted;
use super::classify::{Next, Signal, classify};
use super::dial::{Failure, dial};
use crate::postgres::Target;

/// What is waited for, and how long.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its `connect_timeout` is the deadline of one attempt, the query included.
    pub target: Target,
    pub wanted: Wanted,
    /// For all attempts together, in wall-clock time.
    pub timeout: Duration,
    /// How long the same refusal must last to be final.
    pub fail_fast_after: Duration,
}

/// How the waiting ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Ready,
    TimedOut(Signal),
    Refused(Signal),
}

/// Waits until `options.target` answers in the role that is wanted.
///
/// `changed` hears of each reason once, when it is another than that of the attempt before.
pub async fn until_ready(options: &Options, mut changed: impl FnMut(&Signal)) -> Outcome {
    let deadline = Instant::now() + options.timeout;
    let attempt = options.target.connect_timeout;
    // The reason of the last attempt, and since when it is the same.
    let mut last: Option<(Signal, Instant)> = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let dialled = dial(&options.target, options.wanted, left.min(attempt)).await;
        let Err(failure) = dialled else {
            return Outcome::Ready;
        };
        let cut_short = matches!(failure, Failure::Silent(..)) && left < attempt;
        let signal = classify(&failure, &options.target);
        let (signal, since) = match last.take() {
            // An attempt that was cut by the total deadline learned nothing new.
            Some((before, since)) if cut_short || before == signal => (before, since),
            _ => {
                changed(&signal);
                (signal, Instant::now())
            }
        };
        if signal.next == Next::Refused && since.elapsed() >= options.fail_fast_after {
            return Outcome::Refused(signal);
        }
        let again = Instant::now() + jittered(pause(signal.next), RandomState::new().hash_one(0));
        sleep_until(again.min(deadline)).await;
        if Instant::now() >= deadline {
            return Outcome::TimedOut(signal);
        }
        last = Some((signal, since));
    }
}

fn pause(next: Next) -> Duration {
    match next {
        Next::Soon => Duration::from_millis(250),
        Next::Later | Next::Refused => Duration::from_secs(1),
    }
}

/// `pause` ± 20 %, by any `random` number: many units start at once, and should not dial at once.
fn jittered(pause: Duration, random: u64) -> Duration {
    let percent = 80 + u32::try_from(random % 41).unwrap_or(20);
    pause * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_jittered_by_a_fifth_at_most() {
        let jittered = |random| jittered(Duration::from_secs(1), random).as_millis();
        assert_eq!((jittered(0), jittered(20), jittered(40)), (800, 1000, 1200));
        assert!((0..1000).all(|random| (800..=1200).contains(&jittered(random))));
    }
}
