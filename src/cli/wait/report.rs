//! The probe's messages: when the reason changes, every 30 s while it does not, and at the end.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use serde::Serialize;

use crate::cli::exit::complain;
use crate::cli::output;
use crate::wait::{RetryAfter, Signal, WaitEnd, WaitOptions};

const RUNBOOK: &str = "runbooks/wait.md";
/// How often the probe asks systemd for more time. Progress is reported at the first beat, then at every third.
const BEAT: Duration = Duration::from_secs(10);
/// How long systemd grants from each beat on: room for a late one.
const GRANTED: NotifyState<'static> = NotifyState::ExtendTimeoutUsec(30_000_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Text,
    Quiet,
    Json,
}

/// The result of each target's last attempt.
pub(super) struct WaitReport<'a> {
    targets: &'a [WaitOptions],
    style: Style,
    begin: Instant,
    seen: RefCell<Vec<TargetState>>,
}

#[derive(Clone, PartialEq)]
enum TargetState {
    Nothing,
    Ready,
    Failing(Signal),
}

/// What `--json` prints.
#[derive(Serialize)]
struct JsonReport<'a> {
    ready: bool,
    elapsed_secs: f64,
    targets: Vec<TargetAnswer<'a>>,
}

#[derive(Serialize)]
struct TargetAnswer<'a> {
    host: &'a str,
    port: u16,
    /// As it was asked for: `primary`, `replica` or `any`.
    role: String,
    ready: bool,
    /// `name`, `haproxy`, `pgbouncer`, `postgres`, `role` or `login`; null when ready.
    hop: Option<String>,
    reason: Option<&'a str>,
    look_at: Option<&'static str>,
    runbook: Option<&'static str>,
}

impl<'a> WaitReport<'a> {
    pub(super) fn new(targets: &'a [WaitOptions], style: Style) -> Self {
        Self {
            targets,
            style,
            begin: Instant::now(),
            seen: RefCell::new(vec![TargetState::Nothing; targets.len()]),
        }
    }

    /// Takes a target's new signal, or that it is ready.
    pub(super) fn show(&self, index: usize, signal: Option<&Signal>) {
        if let Some(signal) = signal {
            self.say(&format!(
                "waiting for {}: {signal}",
                self.name(&self.targets[index])
            ));
        }
        self.seen.borrow_mut()[index] = signal.map_or(TargetState::Ready, |signal| {
            TargetState::Failing(signal.clone())
        });
    }

    /// Extends systemd's deadline and reports progress, until it is dropped.
    pub(super) async fn beat(&self) {
        for beat in 0_u64.. {
            // Without NOTIFY_SOCKET it does nothing. A lost message leaves systemd's own deadline in force.
            let _ = sd_notify::notify(&[GRANTED]);
            if beat == 1 || (beat > 0 && beat % 3 == 0) {
                self.progress(beat * BEAT.as_secs());
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    fn progress(&self, secs: u64) {
        for (target, seen) in self.targets.iter().zip(self.seen.borrow().iter()) {
            let place = self.name(target);
            match seen {
                TargetState::Ready => {}
                TargetState::Nothing => {
                    self.say(&format!("still waiting for {place} after {secs} s"));
                }
                TargetState::Failing(signal) => {
                    self.say(&format!(
                        "still waiting for {place} after {secs} s: {signal}"
                    ));
                }
            }
        }
    }

    /// How it ended, in words and for `--json`.
    pub(super) fn ended(&self, ended: WaitEnd) -> std::io::Result<()> {
        let secs = self.begin.elapsed().as_secs_f64();
        match ended {
            WaitEnd::Ready => {
                for target in self.targets {
                    self.say(&format!("{} is ready after {secs:.1} s", self.name(target)));
                }
            }
            WaitEnd::TimedOut => self.last_words(|_| "is not ready"),
            // The others were just not ready yet.
            WaitEnd::Refused => self.last_words(|next| match next {
                RetryAfter::Refused => "refuses for good",
                RetryAfter::Soon | RetryAfter::Later => "is not ready",
            }),
        }
        if self.style == Style::Json {
            let seen = self.seen.borrow();
            let answer = JsonReport {
                ready: ended == WaitEnd::Ready,
                elapsed_secs: (secs * 1000.0).round() / 1000.0,
                targets: self.targets.iter().zip(seen.iter()).map(answer).collect(),
            };
            output::say(serde_json::to_string(&answer)?)?;
        }
        Ok(())
    }

    /// systemd's own deadline arrives as a signal: a boot that fails must report its reason then, too.
    pub(super) fn interrupted(&self) {
        self.last_words(|_| "is not ready, and a signal ended the wait");
    }

    /// For each target that is not ready: the time, the hop, where to look, and the runbook.
    fn last_words(&self, how: impl Fn(RetryAfter) -> &'static str) {
        let secs = self.begin.elapsed().as_secs_f64();
        for (target, seen) in self.targets.iter().zip(self.seen.borrow().iter()) {
            let place = self.name(target);
            match seen {
                TargetState::Failing(signal) => complain(
                    &format!(
                        "{place} {} after {secs:.1} s: {signal} (look at: {}; runbook: {RUNBOOK})",
                        how(signal.next),
                        signal.hop.look_at()
                    ),
                    None,
                ),
                TargetState::Ready => self.say(&format!("{place} is ready")),
                // The only reason of a wait that a signal ended so early, so `--quiet` must not suppress it.
                TargetState::Nothing => complain(
                    &format!("{place} was still in its first attempt after {secs:.1} s"),
                    None,
                ),
            }
        }
    }

    /// Its address, with the role where several are waited for.
    fn name(&self, target: &WaitOptions) -> String {
        match self.targets {
            [_] => target.place(),
            _ => format!("{} ({})", target.place(), target.wanted),
        }
    }

    fn say(&self, what: &str) {
        if self.style != Style::Quiet {
            complain(what, None);
        }
    }
}

fn answer<'a>((target, seen): (&'a WaitOptions, &'a TargetState)) -> TargetAnswer<'a> {
    let signal = match seen {
        TargetState::Failing(signal) => Some(signal),
        TargetState::Nothing | TargetState::Ready => None,
    };
    TargetAnswer {
        host: &target.target.host,
        port: target.target.port,
        role: target.wanted.to_string(),
        ready: *seen == TargetState::Ready,
        hop: signal.map(|signal| signal.hop.to_string()),
        reason: signal.map(|signal| signal.reason.as_str()),
        look_at: signal.map(|signal| signal.hop.look_at()),
        runbook: signal.map(|_| RUNBOOK),
    }
}
