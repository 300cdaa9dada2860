//! Dials until the server is ready, refuses permanently, or the time is up.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::WaitOptions;
use super::classify::{RetryAfter, Signal, classify};
use super::dial::{LoginFailure, dial};
use super::resolve::Resolver;

/// Longer than anyone waits, and not too long for a clock.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Between two attempts.
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(1);

/// How the waiting ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WaitOutcome {
    Ready,
    TimedOut(Signal),
    Refused(Signal),
}

/// Waits until `options.target` answers in the role that is wanted.
///
/// `changed` hears of each reason once, when it is another than that of the attempt before.
pub(crate) async fn until_ready(
    options: &WaitOptions,
    mut changed: impl FnMut(&Signal),
) -> WaitOutcome {
    let deadline = Instant::now() + options.timeout.min(FOREVER);
    let attempt = options.target.connect_timeout.min(FOREVER);
    let mut resolver = Resolver::default();
    // The reason of the last attempt, and since when it is the same.
    let mut last: Option<(Signal, Instant)> = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let limit = if options.timeout.is_zero() {
            attempt
        } else {
            left.min(attempt)
        };
        let tried = dial(options, &mut resolver, limit).await;
        let Err(failure) = tried.result else {
            return WaitOutcome::Ready;
        };
        let cut_short = matches!(failure, LoginFailure::Silent(..)) && limit < attempt;
        let signal = classify(&failure, &options.at(&tried.host));
        let (signal, since) = match last.take() {
            // An attempt that was cut by the total deadline learned nothing new.
            Some((before, since)) if cut_short || before.same_as(&signal) => (before, since),
            _ => {
                changed(&signal);
                (signal, Instant::now())
            }
        };
        let mut again = Instant::now() + pause_after(signal.next, since.elapsed());
        if signal.next == RetryAfter::Refused {
            let last_chance = since + options.fail_fast_after.min(FOREVER);
            if Instant::now() >= last_chance {
                return WaitOutcome::Refused(signal);
            }
            again = again.min(last_chance);
        }
        sleep_until(again.min(deadline)).await;
        if Instant::now() >= deadline {
            return WaitOutcome::TimedOut(signal);
        }
        last = Some((signal, since));
    }
}

/// `lasted` is for how long the reason has been the same. A pause of a twentieth of that hardly delays the unit, and
/// a hundred units that wait for one server must not keep the machine busy that it boots on.
fn pause_after(next: RetryAfter, lasted: Duration) -> Duration {
    let pause = match next {
        RetryAfter::Soon => (lasted / 20).clamp(SHORTEST, LONGEST),
        RetryAfter::Later | RetryAfter::Refused => LONGEST,
    };
    jittered(pause, RandomState::new().hash_one(0))
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
    fn a_pause_grows_with_the_wait_up_to_a_second() {
        for (lasted, least, most) in [
            (0, 200, 300),
            (5, 200, 300),
            (10, 400, 600),
            (3600, 800, 1200),
        ] {
            let pause = pause_after(RetryAfter::Soon, Duration::from_secs(lasted)).as_millis();
            assert!((least..=most).contains(&pause), "{lasted} s: {pause} ms");
        }
    }

    #[test]
    fn a_pause_is_jittered_by_a_fifth_at_most() {
        let jittered = |random| jittered(Duration::from_secs(1), random).as_millis();
        assert_eq!((jittered(0), jittered(20), jittered(40)), (800, 1000, 1200));
        assert!((0..1000).all(|random| (800..=1200).contains(&jittered(random))));
    }
}
