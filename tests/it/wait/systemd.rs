//! The boot race as systemd runs it: a container booted by systemd, in which everything comes up too late for the
//! application but one after the other, and the packaged example unit waits for it.

use std::path::Path;
use std::process::Command;

use super::*;

/// The example as it is shipped; drop-ins put the lab's names and times into it.
const APP: &str = include_str!("../../../packaging/app.service");

/// What comes when, in seconds after the boot.
const NAME: u32 = 4;
const HAPROXY: u32 = 8;
const PGBOUNCER: u32 = 12;
const POSTGRES: u32 = 20;

struct Booted {
    name: String,
}

impl Booted {
    /// Boots the lab's image with the files of `root` in it.
    fn start(root: &Path) -> Self {
        let pid = std::process::id();
        let name = format!("xdb-test-{pid}-systemd");
        let image = std::env::var("XDB_LAB_IMAGE").unwrap_or_else(|_| "xdb-lab:latest".to_owned());
        // With cgroup v1 systemd needs its own hierarchy, with v2 a namespace of its own that it may write.
        let cgroup: &[&str] = if Path::new("/sys/fs/cgroup/systemd").exists() {
            &[
                "--volume=/sys/fs/cgroup/systemd:/sys/fs/cgroup/systemd:rw",
                "--env=SYSTEMD_PROC_CMDLINE=SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1 systemd.unified_cgroup_hierarchy=0",
            ]
        } else {
            &["--privileged", "--cgroupns=private"]
        };
        let binary = format!("--volume={}:/usr/bin/xdb:ro", env!("CARGO_BIN_EXE_xdb"));
        let label = format!("--label=xdb.test-run={pid}");
        let create = [
            "create",
            "--name",
            &name,
            &label,
            &binary,
            "--env=container=docker",
            "--tmpfs=/run",
            "--tmpfs=/run/lock",
            "--shm-size=256m",
            "--entrypoint=/lib/systemd/systemd",
        ];
        docker(&[&create, cgroup, &[&image]].concat()).expect("the container boots");
        let booted = Self { name };
        let root = format!("{}/.", root.display());
        docker(&["cp", &root, &format!("{}:/", booted.name)]).expect("the container boots");
        docker(&["start", &booted.name]).expect("the container boots");
        booted
    }

    fn run(&self, command: &[&str]) -> Result<String, String> {
        docker(&[&["exec", &self.name], command].concat())
    }

    /// Empty while systemd does not answer yet.
    fn property(&self, unit: &str, property: &str) -> String {
        let shown = self.run(&["systemctl", "show", unit, "--value", "-p", property]);
        shown.unwrap_or_default()
    }

    fn journal(&self, unit: &str) -> String {
        let said = self.run(&["journalctl", "--no-pager", "-o", "cat", "-u", unit]);
        said.expect("the journal is read")
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let journal = self.run(&["journalctl", "--no-pager"]);
            eprintln!("{}", journal.unwrap_or_else(|why| why));
        }
        let _ = docker(&["rm", "-fv", &self.name]);
    }
}

fn docker(arguments: &[&str]) -> Result<String, String> {
    let said = Command::new("docker").args(arguments).output();
    let said = said.expect("docker is on PATH");
    if said.status.success() {
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    } else {
        let stderr = String::from_utf8_lossy(&said.stderr);
        Err(format!("docker {arguments:?}: {stderr}"))
    }
}

/// The units of the lab's servers, each after its time, and of the applications.
fn write_units(root: &Path) {
    let units = root.join("etc/systemd/system");
    let wants = units.join("multi-user.target.wants");
    std::fs::create_dir_all(&wants).unwrap();
    let unit = |name: &str, text: &str| {
        std::fs::write(units.join(name), text).unwrap();
        std::os::unix::fs::symlink(format!("../{name}"), wants.join(name)).unwrap();
    };
    let server = |name: &str, delay: u32, exec: &str| {
        let text = format!("[Service]\nType=exec\nExecStartPre=sleep {delay}\nExecStart={exec}\n");
        unit(&format!("lab-{name}.service"), &text);
    };
    server(
        "name",
        NAME,
        "bash -c 'echo 127.0.0.1 management >>/etc/hosts'",
    );
    for (name, delay) in [
        ("haproxy", HAPROXY),
        ("pgbouncer", PGBOUNCER),
        ("postgres", POSTGRES),
    ] {
        server(name, delay, &format!("/etc/xdb-lab/services/{name}/run"));
    }
    // Debian's own units of the same servers are not what is tested here.
    for name in ["haproxy", "pgbouncer", "postgresql", "redis-server"] {
        std::os::unix::fs::symlink("/dev/null", units.join(format!("{name}.service"))).unwrap();
    }
    std::fs::write(
        root.join("etc/environment"),
        "PGPASSWORD=lab-password\nPGPORT=15432\n",
    )
    .unwrap();

    let psql =
        "/usr/lib/postgresql/17/bin/psql -X -h management -U postgres -c 'CREATE TABLE started ()'";
    let app = |name: &str, drop_in: &str| {
        unit(&format!("{name}.service"), APP);
        let directory = units.join(format!("{name}.service.d"));
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("lab.conf"), drop_in).unwrap();
    };
    let service = "[Service]\nUser=postgres\nRestart=no\nExecStart=\n";
    let start = format!("ExecStart=bash -c \"{psql} && echo started && exec sleep infinity\"\n");
    app("app", &format!("{service}{start}"));
    // Its own limit is too short, and the probe's word to systemd carries it over.
    app(
        "short",
        &format!(
            "{service}ExecStart=bash -c 'echo started; exec sleep infinity'\nTimeoutStartSec=6\n"
        ),
    );
    // The same where systemd does not listen.
    app(
        "deaf",
        &format!("{service}ExecStart=echo started\nTimeoutStartSec=6\nNotifyAccess=none\n"),
    );
    app(
        "doomed",
        &format!(
            "{service}ExecStart=echo started\nExecStartPre=\n\
             ExecStartPre=/usr/bin/xdb wait --dbname nothing --fail-fast-after 1\n"
        ),
    );
}

#[test]
fn a_unit_that_boots_before_its_database_starts_the_moment_that_it_is_there() {
    let root = tempfile::tempdir().unwrap();
    write_units(root.path());
    let booted = Booted::start(root.path());
    let minute = Duration::from_secs(90);
    for unit in ["app", "short"] {
        eventually("the unit is active", minute, || {
            (booted.property(unit, "ActiveState") == "active").then_some(())
        });
    }
    let journal = eventually("the application has started", SOON, || {
        let journal = booted.journal("app");
        journal
            .lines()
            .any(|line| line == "started")
            .then_some(journal)
    });
    // Every hop in the order in which it came, each said as it changed.
    let mut rest = journal.as_str();
    for said in [
        "name: management does not resolve",
        "haproxy: nothing listens at management:15432",
        "no live backend",
        // PgBouncer takes the login and cannot finish it.
        "postgres: the login was held back",
        "management:15432 is ready after ",
        "started",
    ] {
        let at = rest
            .find(said)
            .unwrap_or_else(|| panic!("{said}: {journal}"));
        rest = &rest[at + said.len()..];
    }
    assert!(
        journal.contains("still waiting for management:15432 after 10 s: haproxy: "),
        "{journal}"
    );
    assert_eq!(booted.property("app", "NRestarts"), "0");

    // Six seconds are over long before PostgreSQL comes.
    assert!(booted.journal("short").contains("started"));
    assert_eq!(booted.property("deaf", "Result"), "timeout");
    let journal = booted.journal("deaf");
    assert!(!journal.lines().any(|line| line == "started"), "{journal}");
    // Also the unit that systemd ended says what was missing, which on a slow machine is still the name.
    let ended = journal.split("a signal ended the wait after ").nth(1);
    let missing = |hop: &str| ended.is_some_and(|ended| ended.contains(hop));
    assert!(
        missing("s: haproxy: ") || missing("s: name: management does not resolve"),
        "{journal}"
    );

    eventually("it gave up", SOON, || {
        (booted.property("doomed", "ActiveState") == "failed").then_some(())
    });
    let journal = booted.journal("doomed");
    for said in [
        "login: database \"nothing\" does not exist",
        "runbooks/wait.md",
        "status=3",
    ] {
        assert!(journal.contains(said), "{said}: {journal}");
    }
    assert!(!journal.lines().any(|line| line == "started"), "{journal}");
}
