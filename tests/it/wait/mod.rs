//! `xdb wait` against HAProxy, PgBouncer and PostgreSQL, with each of them failing in turn.

mod hops;
mod late;
mod libpq;
mod refusals;
mod roles;
mod silence;
mod systemd;
mod tls;
mod tls_files;
mod usage;

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Background, Lab, Output, Program, eventually};

const SOON: Duration = Duration::from_secs(30);
/// Where applications connect in the lab.
const WAY: &str = "--host 127.0.0.1 --port 15432";

fn lab() -> Lab {
    Lab::setup(Program::Walrus).behind_haproxy().start()
}

/// A role of the application's own, which PgBouncer and PostgreSQL know.
fn lab_with_app() -> Lab {
    let lab = lab();
    lab.sql("CREATE ROLE app LOGIN PASSWORD 'lab-password'");
    lab.ok(r#"echo '"app" "lab-password"' >>/etc/xdb-lab/userlist.txt && sv hup pgbouncer"#);
    lab
}

/// Runs `xdb wait --json` with `flags` to its end, as user postgres.
fn wait(lab: &Lab, flags: &str) -> Ended {
    let begin = Instant::now();
    let said = lab.sh_as_postgres(&format!("{} xdb wait --json {flags}", environment(flags)));
    Ended::new(said, begin.elapsed())
}

/// The same, and returns while it runs. Ask [`said_so_far`] what it said.
fn waiting<'a>(lab: &'a Lab, flags: &str) -> Background<'a> {
    lab.ok("rm -rf /tmp/background.*");
    let command = format!("{} exec xdb wait --json {flags}", environment(flags));
    lab.in_background(&["bash", "-c", &command])
}

/// Tests say what a wrong password is by a flag that is none of xdb's.
fn environment(flags: &str) -> &'static str {
    match flags.split(" # ").nth(1) {
        Some("wrong password") => "XDB_POSTGRES_PASSWORD=hush",
        Some("no password") => "XDB_CONFIG=/dev/null",
        Some(other) => panic!("{other} is no environment"),
        None => "",
    }
}

fn said_so_far(lab: &Lab) -> String {
    lab.sh("cat /tmp/background.*/stderr").stdout
}

fn eventually_says(lab: &Lab, what: &str) {
    eventually(what, SOON, || said_so_far(lab).contains(what).then_some(()));
}

/// How a probe ended.
#[derive(Debug)]
struct Ended {
    said: Output,
    took: Duration,
}

impl Ended {
    fn new(said: Output, took: Duration) -> Self {
        let ended = Self { said, took };
        let lines: Vec<&str> = ended.said.stderr.lines().collect();
        assert!(
            lines.windows(2).all(|pair| pair[0] != pair[1]),
            "a line comes twice: {ended:?}"
        );
        for secret in ["lab-password", "hush"] {
            let everything = format!("{}{}", ended.said.stdout, ended.said.stderr);
            assert!(!everything.contains(secret), "{ended:?}");
        }
        ended
    }

    fn of(background: Background) -> Self {
        let said = background.wait(SOON);
        let answer: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
        let took = Duration::from_secs_f64(answer["elapsed_secs"].as_f64().unwrap_or_default());
        Self::new(said, took)
    }

    fn assert_ready(&self, what: &str) {
        assert_eq!(self.said.code, 0, "{what}: {self:?}");
        assert_eq!(self.answer()["ready"], true, "{what}: {self:?}");
        assert!(
            self.said.stderr.contains(" is ready after "),
            "{what}: {self:?}"
        );
    }

    /// The exit code, the hop in the last line and in the answer, and that it took `at_least`.
    fn assert_failed(&self, what: &str, code: i32, hop: &str, at_least: Duration) {
        assert_eq!(self.said.code, code, "{what}: {self:?}");
        let answer = self.answer();
        assert_eq!(answer["ready"], false, "{what}: {self:?}");
        assert_eq!(answer["targets"][0]["hop"], hop, "{what}: {self:?}");
        let last = self.said.stderr.lines().last().unwrap_or_default();
        for part in [&format!(" s: {hop}: "), "look at: ", "runbooks/wait.md"] {
            assert!(last.contains(part), "{what}: {part}: {self:?}");
        }
        let elapsed = Duration::from_secs_f64(answer["elapsed_secs"].as_f64().unwrap_or_default());
        assert!(
            elapsed >= at_least && self.took >= elapsed,
            "{what}: {self:?}"
        );
    }

    fn assert_says(&self, what: &str) {
        assert!(self.said.stderr.contains(what), "{what}: {self:?}");
    }

    fn answer(&self) -> Value {
        serde_json::from_str(&self.said.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
