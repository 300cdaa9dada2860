//! Pauses between attempts, at one wake-up each.
//!
//! Tokio's own timer wakes the process twice for a sleep of more than 64 ms, and a crowd of probes on a machine that
//! boots does little else than wake up.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// A timer of the kernel's; `None` where there is none to have.
pub(super) struct Pause {
    timer: Option<AsyncFd<OwnedFd>>,
}

impl Pause {
    pub(super) fn new() -> Self {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags).ok();
        // SAFETY: an OwnedFd keeps one descriptor open for as long as it lives, and is its only owner.
        let register = |timer: OwnedFd| unsafe { AsyncFd::register(timer) }.ok();
        Self {
            timer: timer.and_then(register),
        }
    }

    pub(super) async fn until(&self, at: Instant) {
        let left = at.saturating_duration_since(Instant::now());
        // A timer of the kernel's that is set to zero never ends.
        if left.is_zero() {
            return;
        }
        if self.kernel(left).await.is_none() {
            sleep_until(at).await;
        }
    }

    async fn kernel(&self, left: Duration) -> Option<()> {
        let timer = self.timer.as_ref()?;
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(left).ok()?,
        };
        timerfd_settime(timer, TimerfdTimerFlags::empty(), &once).ok()?;
        let mut ready = timer.readable().await.ok()?;
        // The next pause begins with a timer that has not ended.
        rustix::io::read(timer, &mut [0; 8]).ok()?;
        ready.clear_ready();
        Some(())
    }
}
