//! The cluster of docker-compose.yml, by `./dev up` and `./dev down`, as a person starts and ends it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};

use super::Output;
use super::agent::{Agents, User};

/// The image is named by the run that made it; `./dev up` would build it otherwise.
const IMAGE: &str = "XDB_LAB_IMAGE";
const NODES: [&str; 5] = ["s3", "db1", "db2", "management", "app1"];

/// A running cluster of its own, beside any other; it is removed when dropped.
pub struct Cluster {
    /// `./dev test` removes the clusters of runs that were killed: the name holds the process id.
    project: String,
    agents: HashMap<&'static str, Agents>,
    _room: Room,
}

/// Held by each cluster: a third one at once would have two cores do the work of fifteen containers.
struct Room;

static LEFT: Mutex<u32> = Mutex::new(2);
static FREED: Condvar = Condvar::new();

impl Room {
    fn take() -> Room {
        let left = LEFT.lock().unwrap();
        *FREED.wait_while(left, |left| *left == 0).unwrap() -= 1;
        Room
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *LEFT.lock().unwrap() += 1;
        FREED.notify_one();
    }
}

impl Cluster {
    /// Gives the cluster once all of it is healthy, and what `./dev up` said.
    pub fn up() -> (Cluster, String) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let _room = Room::take();
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let project = format!("xdb-test-{}-{number}", std::process::id());
        let agents = NODES.map(|node| (node, Agents::of(&format!("{project}-{node}"))));
        let cluster = Cluster {
            agents: agents.into(),
            project,
            _room,
        };
        let said = cluster.dev(&["up"]).succeeded("./dev up");
        (cluster, said)
    }

    /// Removes the cluster; what Docker still holds of it after that is given back, a line each.
    pub fn down(self) -> Vec<String> {
        self.dev(&["down"]).succeeded("./dev down");
        let filter = format!("label=com.docker.compose.project={}", self.project);
        let list = |what: &[&str]| {
            let command = [what, &["--quiet", "--filter", &filter]].concat();
            output(Command::new("docker").args(&command)).succeeded("docker lists")
        };
        ["ps --all", "volume ls", "network ls"]
            .iter()
            .flat_map(|what| {
                let words: Vec<&str> = what.split(' ').collect();
                let left = list(&words);
                left.lines()
                    .map(|id| format!("{what}: {id}"))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// One of ./dev's commands for this cluster.
    pub fn dev(&self, args: &[&str]) -> Output {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let image = super::program::image();
        output(
            Command::new(root.join("dev"))
                .args(args)
                .current_dir(root)
                .env("COMPOSE_PROJECT_NAME", &self.project)
                .env("XDB_BINARY", env!("CARGO_BIN_EXE_xdb"))
                // `./dev up` asks each node itself.
                .env("XDB_HEALTH_INTERVAL", "60s")
                .env(IMAGE, format!("{}:{}", image.name, image.tag)),
        )
    }

    /// `xdb` as user postgres on a node: "db1" or "db2".
    pub fn xdb(&self, node: &str, args: &[&str]) -> Output {
        self.exec(node, User::Postgres, &[&["xdb"], args].concat())
    }

    /// A bash script as root on any node.
    pub fn sh(&self, node: &str, script: &str) -> Output {
        self.exec(node, User::Root, &["bash", "-c", script])
    }

    /// `sql` in the node's own PostgreSQL as its superuser; rows as lines and columns separated by `|`.
    pub fn sql(&self, node: &str, sql: &str) -> String {
        let psql = ["/usr/lib/postgresql/17/bin/psql", "-XAtq", "-d", "app"];
        let command = [&psql[..], &["-v", "ON_ERROR_STOP=1", "-c", sql]].concat();
        self.exec(node, User::Postgres, &command)
            .succeeded(&format!("{node}: {sql}"))
    }

    /// The power button: "kill" takes a node down at once, "start" boots it with what its disks hold.
    pub fn power(&self, action: &str, node: &str) {
        let container = format!("{}-{node}", self.project);
        self.agents[node].forget();
        output(Command::new("docker").args([action, &container])).succeeded(action);
    }

    /// What `GET path` of the daemon on `node` says: status and body.
    pub fn http(&self, node: &str, path: &str) -> (u32, String) {
        let curl = format!("curl -s -m 5 -w '\\n%{{http_code}}' http://127.0.0.1:8009{path}");
        let said = self.sh(node, &curl).stdout;
        let (body, code) = said.rsplit_once('\n').unwrap_or(("", "0"));
        (code.parse().unwrap_or_default(), body.to_owned())
    }

    /// A command of redis-cli on the management node.
    pub fn redis(&self, command: &str) -> Output {
        let cli = "REDISCLI_AUTH=$LAB_REDIS_PASSWORD redis-cli --raw";
        self.sh("management", &format!("{cli} {command}"))
    }

    fn exec(&self, node: &str, user: User, command: &[&str]) -> Output {
        self.agents[node].run(user, command, &[])
    }
}

impl Drop for Cluster {
    /// What the nodes said is shown first when the test failed: it goes with them.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in NODES {
                let log = output(Command::new("docker").args([
                    "logs",
                    "--tail",
                    "40",
                    &format!("{}-{node}", self.project),
                ]));
                eprintln!(
                    "--- {node} when the test failed ---\n{}{}",
                    log.stdout, log.stderr
                );
            }
        }
        // Without effect after down().
        self.dev(&["down"]);
    }
}

fn output(command: &mut Command) -> Output {
    let ended = command.output().expect("the command can be started");
    Output {
        code: ended.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&ended.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}
