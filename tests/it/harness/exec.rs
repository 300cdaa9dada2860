//! Runs commands in the container and hands back exactly what they said.

use serde_json::Value;

use super::Lab;
use super::agent::User;

/// Before a command of a script that root runs: has it run as [`User::Postgres`] does.
pub(super) const AS_POSTGRES: &[&str] = &[
    "setpriv",
    "--reuid=postgres",
    "--regid=postgres",
    "--init-groups",
    "env",
    "-C",
    "/var/lib/postgresql",
    "HOME=/var/lib/postgresql",
    "USER=postgres",
    "LOGNAME=postgres",
];

/// What a command said. A command killed by signal n has the code 128 + n.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Gives stdout without its last line break, and panics with everything said when the command failed.
    pub fn succeeded(self, what: &str) -> String {
        assert_eq!(
            self.code, 0,
            "{what}\n--- stdout\n{}--- stderr\n{}",
            self.stdout, self.stderr
        );
        self.stdout.trim_end().to_owned()
    }

    /// Panics unless it failed with `code` and said `words` and what to do, and no secret.
    #[track_caller]
    pub fn failed(&self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(words), "{words:?} is not in {self:?}");
        assert!(self.stderr.contains("HINT:"), "{self:?}");
        for secret in ["lab-secret-key", "lab-password"] {
            assert!(!self.stderr.contains(secret), "{self:?}");
        }
    }
}

impl Lab {
    /// `xdb` as user postgres.
    pub fn xdb(&self, args: &[&str]) -> Output {
        self.run_as(User::Postgres, &[&["xdb"], args].concat())
    }

    /// What `xdb … --json` prints when it succeeds.
    #[track_caller]
    pub fn xdb_json(&self, args: &[&str]) -> Value {
        let said = self.xdb(&[args, &["--json"]].concat());
        assert_eq!(said.code, 0, "{said:?}");
        serde_json::from_str(&said.stdout).expect("JSON")
    }

    /// A bash script as root.
    pub fn sh(&self, script: &str) -> Output {
        self.run(&["bash", "-c", script], &[])
    }

    /// A bash script as user postgres.
    pub fn sh_as_postgres(&self, script: &str) -> Output {
        self.run_as(User::Postgres, &["bash", "-c", script])
    }

    /// A bash script as root that must succeed; gives its stdout.
    pub fn ok(&self, script: &str) -> String {
        self.sh(script).succeeded(script)
    }

    /// Runs `sql` in the live cluster as its superuser; gives rows as lines and columns separated by `|`.
    pub fn sql(&self, sql: &str) -> String {
        let psql = [
            "/usr/lib/postgresql/17/bin/psql",
            "-XAtq",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            sql,
        ];
        self.run_as(User::Postgres, &psql).succeeded(sql)
    }

    /// Any command as root.
    pub(super) fn run(&self, command: &[&str], environment: &[(&str, &str)]) -> Output {
        self.agents.run(User::Root, command, environment)
    }

    fn run_as(&self, user: User, command: &[&str]) -> Output {
        self.agents.run(user, command, &[])
    }
}
