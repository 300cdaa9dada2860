//! A command running on its own, so that a test can cut or kill something in the middle of it.

use std::time::Duration;

use super::exec::AS_POSTGRES;
use super::{Lab, Output, eventually};

pub struct Background<'a> {
    lab: &'a Lab,
    /// Holds the files pid, stdout, stderr and, once it ended, code.
    directory: String,
}

impl Lab {
    /// Starts `xdb` as user postgres and returns while it runs.
    pub fn xdb_in_background(&self, args: &[&str]) -> Background<'_> {
        self.in_background(&[&["xdb"], args].concat())
    }

    /// Starts any command as user postgres and returns while it runs.
    pub fn in_background(&self, command: &[&str]) -> Background<'_> {
        // All three streams are redirected: the exec would wait for whoever holds one open.
        let script = r#"
            directory=$(mktemp -d /tmp/background.XXXXXX) && cd "$directory" || exit 1
            { "$@" >stdout 2>stderr & echo $! >pid; wait $!; echo $? >code.new; mv code.new code; } >/dev/null 2>&1 </dev/null &
            until [ -s pid ]; do sleep 0.01; done
            echo "$directory""#;
        let command = [&["bash", "-c", script, "background"], AS_POSTGRES, command].concat();
        let directory = self.run(&command, &[]).succeeded("start in the background");
        Background {
            lab: self,
            directory,
        }
    }
}

impl Background<'_> {
    pub fn is_running(&self) -> bool {
        self.lab
            .sh(&format!("test -e {}/code", self.directory))
            .code
            != 0
    }

    /// Sends a signal ("KILL", "TERM") to the process alone, not to its children.
    pub fn signal(&self, name: &str) {
        self.lab
            .ok(&format!("kill -s {name} $(cat {}/pid)", self.directory));
    }

    /// Waits for its end, at most `deadline`.
    pub fn wait(&self, deadline: Duration) -> Output {
        eventually("the command in the background ends", deadline, || {
            (!self.is_running()).then_some(())
        });
        let file = |name: &str| {
            self.lab
                .sh(&format!("cat {}/{name}", self.directory))
                .stdout
        };
        Output {
            code: file("code").trim().parse().expect("an exit code"),
            stdout: file("stdout"),
            stderr: file("stderr"),
        }
    }
}
