//! Time that this machine had: on a virtual one the host may take the processors away, and nobody is late for that.

use std::time::{Duration, Instant};

/// Wall time beside had time, at most: what its host forgets for good ends the test all the same.
const MOST: u32 = 6;
/// A deadline is what a machine needs that is well and has other tests to do; a slow one may take so many times as long.
const PATIENCE: u32 = 3;

pub struct Time {
    began: Instant,
    ticks: Ticks,
}

/// Of all processors, since they started.
#[derive(Clone, Copy)]
struct Ticks {
    all: u64,
    stolen: u64,
}

impl Time {
    pub fn start() -> Time {
        Time {
            began: Instant::now(),
            ticks: Ticks::now(),
        }
    }

    /// Whether nobody needs to wait any longer for what takes no more than `deadline`.
    pub fn is_past(&self, deadline: Duration) -> bool {
        self.had() > deadline * PATIENCE
    }

    /// Since the start, without what was stolen.
    fn had(&self) -> Duration {
        let now = Ticks::now();
        // The kernel's counts may step back a little.
        let all = now.all.saturating_sub(self.ticks.all);
        let stolen = now.stolen.saturating_sub(self.ticks.stolen);
        let passed = self.began.elapsed();
        let share = all.saturating_sub(stolen) as f64 / all.max(1) as f64;
        passed.mul_f64(share).max(passed / MOST)
    }
}

impl Ticks {
    /// The line "cpu" of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal.
    fn now() -> Ticks {
        let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let line = stat.lines().next().unwrap_or_default();
        let numbers = line.split_whitespace().skip(1).take(8);
        let numbers: Vec<u64> = numbers.filter_map(|number| number.parse().ok()).collect();
        Ticks {
            all: numbers.iter().sum(),
            stolen: numbers.get(7).copied().unwrap_or_default(),
        }
    }
}
