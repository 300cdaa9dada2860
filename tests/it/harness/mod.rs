//! Starts one container of `xdb-lab` a test, with the xdb under test mounted, and acts in it by an agent.
//!
//! Everything under test reaches S3 through toxiproxy (127.0.0.1:7000), where faults are injected.
//! The harness itself asks S3 directly (127.0.0.1:7070), so a fault never blinds a check.

mod agent;
mod background;
mod cluster;
mod config;
mod exec;
mod faults;
mod left_behind;
mod node;
mod program;
mod receiver;
mod time;
mod writer;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use testcontainers::core::{AccessMode, IntoContainerPort, Mount};
use testcontainers::runners::SyncRunner;
use testcontainers::{Container, CopyTargetOptions, GenericImage, ImageExt};

use agent::Agents;
pub use background::Background;
pub use cluster::Cluster;
pub use exec::Output;
pub use program::Program;
pub(crate) use program::for_each_program;
pub use receiver::{Receiver, SILENT, SLOW};
use time::Time;
pub use writer::Writer;

/// Where restore tests put their scratch clusters.
pub const SCRATCH: &str = "/var/lib/xdb/restore-test";
const CONFIG: &str = "/etc/xdb/xdb.toml";

/// One running container; it is removed when dropped.
pub struct Lab {
    container: Container<GenericImage>,
    agents: Agents,
    program: Program,
}

/// What a lab is started with; `Lab::start` and `Lab::start_bare` are the usual two.
pub struct Setup {
    program: Program,
    services: &'static str,
    tmpfs: Option<(&'static str, &'static str)>,
    exposed: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Up,
    Down,
}

impl Lab {
    /// S3 with the empty buckets `walg-test` and `pgdump-test`, toxiproxy, PostgreSQL, and /etc/xdb/xdb.toml for `program`.
    pub fn start(program: Program) -> Lab {
        Lab::setup(program).start()
    }

    /// The same without PostgreSQL: a host that can only restore.
    pub fn start_bare(program: Program) -> Lab {
        Lab::setup(program).bare().start()
    }

    pub fn setup(program: Program) -> Setup {
        Setup {
            program,
            services: "s3 toxiproxy postgres",
            tmpfs: None,
            exposed: None,
        }
    }

    /// Brings a service up or down and waits until it answers, or is gone.
    pub fn service(&self, name: &str, state: Service) {
        let verb = if state == Service::Up {
            "start"
        } else {
            "stop"
        };
        self.ok(&format!("sv -w 30 {verb} {name}"));
    }

    /// Where this machine reaches the container's `port`, which its setup exposes.
    pub fn address(&self, port: u16) -> String {
        let host = self.container.get_host().expect("docker has a host");
        let mapped = self.container.get_host_port_ipv4(port);
        format!("{host}:{}", mapped.expect("the port is exposed"))
    }

    /// Rewrites /etc/xdb/xdb.toml: the base settings, with those of `extra` added or replaced.
    pub fn config(&self, extra: &str) {
        self.write_file(
            CONFIG,
            &config::render(self.program, extra),
            "root:postgres",
            "0640",
        );
    }

    pub fn write_file(&self, path: &str, contents: &str, owner: &str, mode: &str) {
        let script =
            r#"printf %s "$CONTENTS" >"$FILE" && chown "$OWNER" "$FILE" && chmod "$MODE" "$FILE""#;
        self.run(
            &["bash", "-c", script],
            &[
                ("CONTENTS", contents),
                ("FILE", path),
                ("OWNER", owner),
                ("MODE", mode),
            ],
        )
        .succeeded(&format!("write {path}"));
    }

    /// Copies what is in `host_dir` into `container_dir`, owned by root.
    pub fn copy_in(&self, host_dir: &Path, container_dir: &str) {
        self.ok(&format!("mkdir -p '{container_dir}'"));
        // The agent's commands have no standard input, so a tree goes in by docker's own client.
        let copied = Command::new("docker")
            .arg("cp")
            .arg(host_dir.join("."))
            .arg(format!("{}:{container_dir}", self.container.id()))
            .output()
            .expect("docker is on PATH");
        assert!(
            copied.status.success(),
            "docker cp {}: {}",
            host_dir.display(),
            String::from_utf8_lossy(&copied.stderr)
        );
    }
}

impl Setup {
    pub fn bare(mut self) -> Setup {
        self.services = "s3 toxiproxy";
        self
    }

    /// All that a node's daemon talks to.
    pub fn with_daemon(mut self) -> Setup {
        self.services = "s3 toxiproxy postgres pgbouncer redis";
        self
    }

    /// PostgreSQL as an application reaches it: HAProxy on 15432, PgBouncer on 6432.
    pub fn behind_haproxy(mut self) -> Setup {
        self.services = "s3 toxiproxy postgres pgbouncer haproxy";
        self
    }

    /// Nothing but Redis, which the test itself reaches by [`Lab::address`] of 6379.
    pub fn redis(mut self) -> Setup {
        self.services = "redis";
        self.exposed = Some(6379);
        self
    }

    /// Puts a directory of xdb's on a file system of its own of this size ("64m"), so that it can run full.
    pub fn tmpfs(mut self, directory: &'static str, size: &'static str) -> Setup {
        self.tmpfs = Some((directory, size));
        self
    }

    pub fn start(self) -> Lab {
        let image = program::image();
        let mut base = GenericImage::new(&image.name, &image.tag);
        if let Some(port) = self.exposed {
            base = base.with_exposed_port(port.tcp());
        }
        let mut request = base
            // `./dev test` removes the containers of runs that were killed.
            .with_label("xdb.test-run", std::process::id().to_string())
            .with_label(
                "xdb.test",
                std::thread::current().name().unwrap_or_default(),
            )
            .with_startup_timeout(Duration::from_secs(300))
            .with_env_var("LAB_SERVICES", self.services)
            .with_env_var("LAB_BUCKETS", "walg-test pgdump-test")
            .with_shm_size(256 << 20)
            .with_mount(
                Mount::bind_mount(env!("CARGO_BIN_EXE_xdb"), "/usr/local/bin/xdb")
                    .with_access_mode(AccessMode::ReadOnly),
            )
            .with_copy_to(
                CopyTargetOptions::new(CONFIG).with_mode(0o640),
                config::render(self.program, "").into_bytes(),
            );
        if let Some((directory, size)) = self.tmpfs {
            request = request.with_mount(Mount::tmpfs_mount(directory).with_size(size));
        }
        let container = request.start().expect("the lab's container starts");
        let lab = Lab {
            agents: Agents::of(container.id()),
            container,
            program: self.program,
        };
        if let Some((directory, _)) = self.tmpfs {
            lab.ok(&format!(
                "chown postgres:postgres {directory} && chmod 0750 {directory}"
            ));
        }
        // Fails at once while runit still sets itself up, hence the loop around its own waiting. Not `sv check`: that is
        // content with a service that has just died.
        let check = format!("sv -w 30 start {}", self.services);
        eventually("the lab's services are up", Duration::from_secs(60), || {
            (lab.sh(&check).code == 0).then_some(())
        });
        lab
    }
}

impl Drop for Lab {
    /// A failed test takes its container along, so what the servers said is shown first.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.sh("tail -n 30 /var/log/postgresql/lab.log /var/log/xdb-lab/{s3,pgbouncer,haproxy}.log /tmp/background.*/stderr; ps axfo pid,stat,args");
            eprintln!(
                "--- the lab when the test failed ---\n{}\n{}",
                logs.stdout, logs.stderr
            );
        }
    }
}

/// Polls until `poll` gives a value, and panics with `what` when it did not before `deadline` is past, as [`Time`] tells that.
pub fn eventually<T>(what: &str, deadline: Duration, mut poll: impl FnMut() -> Option<T>) -> T {
    let time = Time::start();
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(
            !time.is_past(deadline),
            "not within {deadline:?}, and not with patience: {what}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}
