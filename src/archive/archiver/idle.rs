//! Whether the processors have time for one more upload.

use std::time::{Duration, Instant};

use procfs::{CurrentSI, KernelStats};

/// How long one measurement counts; /proc/stat tells hundredths of a second.
const MEASURED: Duration = Duration::from_millis(200);

/// Less idle time than this is none.
const SOME: f64 = 0.1;

/// All processors' time since the machine started, in ticks.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    idle: u64,
    all: u64,
}

/// The share of idle time, measured now and then.
#[derive(Debug)]
pub(super) struct Idle {
    last: Option<(Ticks, Instant)>,
    /// Until it is measured, and where it cannot be, there is some.
    some: bool,
}

impl Default for Idle {
    fn default() -> Self {
        Self {
            last: None,
            some: true,
        }
    }
}

impl Idle {
    /// Measures where that is due.
    pub(super) fn some(&mut self) -> bool {
        if self.last.is_none_or(|(_, at)| at.elapsed() >= MEASURED) {
            let now = ticks();
            if let (Some((before, _)), Some(now)) = (self.last, now) {
                self.some = share(before, now) >= SOME;
            }
            self.last = now.map(|now| (now, Instant::now()));
        }
        self.some
    }
}

fn ticks() -> Option<Ticks> {
    let time = KernelStats::current().ok()?.total;
    let waiting = time.iowait.unwrap_or_default();
    let busy = [time.user, time.nice, time.system];
    let others = [time.irq, time.softirq, time.steal].map(Option::unwrap_or_default);
    let idle = time.idle + waiting;
    Some(Ticks {
        idle,
        all: idle + busy.iter().chain(&others).sum::<u64>(),
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ticks of some hundred milliseconds"
)]
fn share(before: Ticks, now: Ticks) -> f64 {
    let all = now.all.saturating_sub(before.all);
    if all == 0 {
        return 1.0;
    }
    now.idle.saturating_sub(before.idle) as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_time_between_two_looks() {
        let at = |idle, all| Ticks { idle, all };
        for (before, now, some) in [
            (at(100, 1000), at(110, 1040), true),
            (at(100, 1000), at(103, 1040), false),
            (at(100, 1000), at(100, 1000), true),
        ] {
            assert_eq!(share(before, now) >= SOME, some, "{before:?} {now:?}");
        }
        assert!(Idle::default().some());
    }
}
