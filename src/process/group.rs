//! One child and all that it started, as one process group.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, kill_process, kill_process_group, set_parent_process_death_signal,
};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::ProcessError;

/// How long a group may take to clean up after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(3);

/// A running child, leader of its own process group; dropping it sends the group the signal that xdb's death would.
#[derive(Debug)]
pub(crate) struct ProcessGroup {
    child: Child,
    program: PathBuf,
    /// `None` once nothing is left to signal.
    id: Option<Pid>,
    last_signal: Signal,
}

impl ProcessGroup {
    /// Starts `command`; should xdb die, the kernel sends `last_signal` to the child.
    ///
    /// SIGKILL for most; SIGQUIT for a PostgreSQL, which frees its shared memory then.
    ///
    /// # Errors
    /// When the program is not there or cannot be started.
    pub(crate) fn start(command: &mut Command, last_signal: Signal) -> Result<Self, ProcessError> {
        let program = PathBuf::from(command.as_std().get_program());
        command.process_group(0);
        // SAFETY: between fork and exec only one prctl(2) is called, which is async-signal-safe.
        // The signal is tied to the thread that forks: xdb's runtimes keep their threads until they end.
        unsafe {
            command.pre_exec(move || Ok(set_parent_process_death_signal(Some(last_signal))?));
        }
        let child = command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ProcessError::Missing {
                program: program.clone(),
            },
            _ => ProcessError::Start {
                program: program.clone(),
                source,
            },
        })?;
        let id = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        Ok(Self {
            child,
            program,
            id,
            last_signal,
        })
    }

    /// The child's process id; `None` once nothing is left to signal.
    pub(crate) fn id(&self) -> Option<i32> {
        self.id.map(|id| id.as_raw_nonzero().get())
    }

    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    pub(crate) fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// Waits for the child itself; at `deadline` the group is asked to end, then killed.
    ///
    /// # Errors
    /// [`ProcessError::Deadline`], after the group is gone.
    pub(crate) async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus, ProcessError> {
        if let Ok(ended) = timeout(deadline, self.child.wait()).await {
            return ended.map_err(|source| ProcessError::Wait {
                program: self.program.clone(),
                source,
            });
        }
        self.stop(Signal::TERM, GRACE).await;
        Err(ProcessError::Deadline {
            program: self.program.clone(),
            after: deadline,
        })
    }

    /// The exit status when the child has ended already.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends `signal` to the child alone, waits `grace` for its end, then kills what is left of the group.
    pub(crate) async fn stop(&mut self, signal: Signal, grace: Duration) {
        if let Some(id) = self.child.id().and(self.id) {
            // Gone already is what was wanted.
            let _ = kill_process(id, signal);
            let _ = timeout(grace, self.child.wait()).await;
        }
        self.kill();
        let _ = timeout(GRACE, self.child.wait()).await;
    }

    /// Kills the whole group; one that forks meanwhile is stopped first, so that nothing slips through.
    pub(crate) fn kill(&mut self) {
        let Some(id) = self.id.take() else { return };
        for _ in 0..3 {
            if kill_process_group(id, Signal::STOP).is_err()
                || kill_process_group(id, Signal::KILL).is_err()
            {
                break;
            }
        }
    }

    /// Leaves what the child started to itself.
    pub(crate) fn release(&mut self) {
        self.id = None;
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        if self.last_signal == Signal::KILL {
            self.kill();
        } else if let Some(id) = self.id.filter(|_| self.child.id().is_some()) {
            let _ = kill_process(id, self.last_signal);
        }
    }
}
