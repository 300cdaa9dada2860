//! The listening socket that systemd passes to the daemon, and the watchdog messages to systemd.

use std::future::pending;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// The listening socket of xdb.socket; `None` where systemd hands none over.
///
/// # Errors
/// When it is not one TCP socket.
pub(super) fn socket() -> io::Result<Option<TcpListener>> {
    let mut sockets = sd_notify::listen_fds()?;
    let Some(socket) = sockets.next() else {
        return Ok(None);
    };
    if sockets.next().is_some() {
        return Err(io::Error::other("there is more than one"));
    }
    // SAFETY: systemd opened it for this process, by its own process id, and nothing else takes it: this is called once.
    let listener = TcpListener::from(unsafe { OwnedFd::from_raw_fd(socket) });
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

/// Counts the turns of one loop.
#[derive(Debug, Default)]
pub(super) struct TurnCounter(AtomicU64);

impl TurnCounter {
    pub(super) fn turned(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The loops without which the daemon is as good as dead.
#[derive(Debug, Default)]
pub(super) struct Liveness {
    pub roles: TurnCounter,
    pub driver: TurnCounter,
}

impl Liveness {
    /// Tells systemd for as long as both loops turn; it kills and starts again what falls silent.
    pub(super) async fn keep_watchdog_quiet(&self) {
        let Some(limit) = sd_notify::watchdog_enabled() else {
            return pending().await;
        };
        let mut ticks = tokio::time::interval((limit / 4).max(Duration::from_millis(1)));
        let mut told = [0, 0];
        loop {
            ticks.tick().await;
            if let Some(counts) = self.turned_since(told) {
                told = counts;
                let _ = sd_notify::notify(&[NotifyState::Watchdog]);
            }
        }
    }

    /// Both counts, once both loops have turned.
    pub(super) fn turned_since(&self, told: [u64; 2]) -> Option<[u64; 2]> {
        let counts = [&self.roles, &self.driver].map(|counter| counter.0.load(Ordering::Relaxed));
        (counts[0] != told[0] && counts[1] != told[1]).then_some(counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_loop_that_hangs_silences_the_daemon() {
        let liveness = Liveness::default();
        assert_eq!(liveness.turned_since([0, 0]), None);
        liveness.roles.turned();
        assert_eq!(liveness.turned_since([0, 0]), None, "no job is driven");
        liveness.driver.turned();
        assert_eq!(liveness.turned_since([0, 0]), Some([1, 1]));
        liveness.driver.turned();
        assert_eq!(liveness.turned_since([1, 1]), None, "no role is sampled");
        liveness.roles.turned();
        assert_eq!(liveness.turned_since([1, 1]), Some([2, 2]));
    }
}
