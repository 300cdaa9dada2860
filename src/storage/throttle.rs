//! A token bucket: so many bytes a second on average, and a short burst.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// What may pass at once after a pause, in time at the rate.
const BURST: Duration = Duration::from_millis(250);

/// Shared by all that must keep to one limit together.
#[derive(Debug)]
pub struct Throttle {
    /// Bytes a second.
    rate: u64,
    /// When everything that was taken so far has passed at the rate.
    passed_at: Mutex<Instant>,
}

impl Throttle {
    /// A limit of `rate` bytes a second; a rate of zero is one byte.
    pub fn new(rate: u64) -> Self {
        Self {
            rate: rate.max(1),
            passed_at: Mutex::new(Instant::now()),
        }
    }

    /// Waits until `bytes` more may pass.
    pub async fn take(&self, bytes: u64) {
        let now = Instant::now();
        let wait = {
            // A panic while it was held left a valid time.
            let mut passed_at = self.passed_at.lock().unwrap_or_else(|e| e.into_inner());
            *passed_at = (*passed_at).max(now) + time_for(bytes, self.rate);
            passed_at.saturating_duration_since(now)
        };
        if wait > BURST {
            sleep(wait - BURST).await;
        }
    }
}

fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_their_time_at_the_rate() {
        for (bytes, rate, secs) in [
            (0, 1, 0.0),
            (10, 10, 1.0),
            (8 << 20, 4 << 20, 2.0),
            (1, 1000, 0.001),
        ] {
            let time = time_for(bytes, rate);
            assert_eq!(time, Duration::from_secs_f64(secs), "{bytes} at {rate}");
        }
        assert!(time_for(u64::MAX, 1) > Duration::from_hours(24));
    }

    #[tokio::test]
    async fn what_was_taken_delays_what_follows() {
        let throttle = Throttle::new(1000);
        let begun = Instant::now();
        // Half a second's worth, of which a quarter may pass at once.
        throttle.take(500).await;
        let passed_at = *throttle.passed_at.lock().unwrap();
        assert!(passed_at >= begun + Duration::from_millis(500));
        assert!(Instant::now() >= begun + Duration::from_millis(250));
    }
}
