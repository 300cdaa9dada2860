//! Alerts against a real Redis: the library in this process, Redis in the lab.

mod connection;
mod delivery;
mod receivers;
mod reconcile;
mod silences;
mod verb;

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use redis::{Commands, Connection, cmd};
use serde_json::Value;
use tokio::runtime::Runtime;
use xdb::alerts::{Alerts, AlertsError, Event, Extent, Judged, Rules};
use xdb::model::{AlertKey, Finding, Scope, Verdict};
use xdb::redis::Redis;
use xdb::store::Store;

use crate::harness::{Lab, Program};

const ACTIVE: &str = "xdb:main:alerts:active";
const EVENTS: &str = "xdb:main:alerts:events";

/// Redis, and a runtime for the library; every node of a test shares both.
struct Bench {
    lab: Lab,
    runtime: Runtime,
}

/// What one daemon holds.
struct Node {
    alerts: Alerts,
    store: Store,
    redis: Redis,
    hostname: &'static str,
}

impl Bench {
    fn start() -> Self {
        Self {
            lab: Lab::setup(Program::Walrus).redis().start(),
            runtime: Runtime::new().unwrap(),
        }
    }

    fn redis(&self, password: &str) -> Redis {
        self.redis_as(None, password)
    }

    fn redis_as(&self, user: Option<&str>, password: &str) -> Redis {
        Redis::new(&xdb::config::Redis {
            url: format!("redis://{}", self.lab.address(6379)),
            user: user.map(str::to_owned),
            ca_cert_file: None,
            password: Some(password.into()),
            timeout: Duration::from_secs(2),
        })
        .unwrap()
    }

    fn node(&self, hostname: &'static str, directory: &Path) -> Node {
        self.node_with(hostname, directory, Rules::default())
    }

    fn node_with(&self, hostname: &'static str, directory: &Path, rules: Rules) -> Node {
        let store = Store::open(directory, now()).unwrap().store;
        Node {
            alerts: Alerts::new(store.clone(), "main", hostname).with_rules(rules),
            store,
            redis: self.redis("lab-password"),
            hostname,
        }
    }

    fn record(&self, node: &Node, findings: &[(&str, Scope, Verdict)]) -> Vec<Event> {
        let judged = findings.iter().map(|(check, scope, verdict)| Judged {
            finding: Finding {
                value: Some(90.5),
                threshold: Some(60.0),
                runbook: Some(format!("{check}.md")),
                ..Finding::new(*check, scope.clone(), "db2", verdict.clone())
            },
            hold: Duration::ZERO,
        });
        let recorded = node.alerts.record(judged.collect(), Extent::Part, now());
        self.runtime.block_on(recorded).unwrap()
    }

    fn deliver(&self, node: &Node) -> Result<u64, AlertsError> {
        self.runtime.block_on(node.alerts.deliver(&node.redis))
    }

    fn reconcile(&self, node: &Node, others: &[Scope]) {
        let own = Scope::Node(node.hostname.to_owned());
        let scopes = [&[own], others].concat();
        let reconciled = node.alerts.reconcile(&node.redis, &scopes);
        self.runtime.block_on(reconciled).unwrap();
    }

    fn resolve(&self, node: &Node, scope: Scope) -> Vec<Event> {
        let which = move |key: &AlertKey| key.scope == scope;
        let resolved = node.alerts.resolve(which, "role changed", now());
        self.runtime.block_on(resolved).unwrap()
    }

    fn queued(&self, node: &Node) -> usize {
        let queued = node.store.read(|reading| reading.queued());
        self.runtime.block_on(queued).unwrap().len()
    }

    /// A client of its own, as a consumer has it.
    fn consumer(&self) -> Connection {
        let url = format!("redis://:lab-password@{}", self.lab.address(6379));
        redis::Client::open(url).unwrap().get_connection().unwrap()
    }

    /// The hash's fields with each alert's severity.
    fn active(&self) -> Vec<String> {
        let hash: Vec<(String, String)> = self.consumer().hgetall(ACTIVE).unwrap();
        let shown = |(field, alert): (String, String)| {
            let alert: Value = serde_json::from_str(&alert).unwrap();
            let text = |name: &str| alert[name].as_str().unwrap().to_owned();
            format!("{field} {} by {}", text("severity"), text("reporter"))
        };
        let mut active: Vec<_> = hash.into_iter().map(shown).collect();
        active.sort();
        active
    }

    /// The stream's events in its order, as "kind check/node/object".
    fn events(&self) -> Vec<String> {
        self.stream()
            .iter()
            .map(|(_, event)| {
                let text = |name: &str| event[name].as_str().unwrap();
                format!(
                    "{} {}/{}/{}",
                    text("kind"),
                    text("check"),
                    text("node"),
                    text("object")
                )
            })
            .collect()
    }

    /// Sequence number and event.
    fn stream(&self) -> Vec<(i64, Value)> {
        type Entries = Vec<(String, Vec<(String, String)>)>;
        let mut range = cmd("XRANGE");
        range.arg(EVENTS).arg("-").arg("+");
        let entries: Entries = range.query(&mut self.consumer()).unwrap();
        let read = |(_, fields): (String, Vec<(String, String)>)| {
            let field = |name: &str| {
                let found = fields.iter().find(|(field, _)| field == name);
                found.unwrap().1.clone()
            };
            (
                field("seq").parse().unwrap(),
                serde_json::from_str(&field("event")).unwrap(),
            )
        };
        entries.into_iter().map(read).collect()
    }
}

fn now() -> Timestamp {
    "2026-05-13T10:14:29Z".parse().unwrap()
}

fn db1() -> Scope {
    Scope::Node("db1".to_owned())
}

fn critical() -> Verdict {
    Verdict::Critical("90.5 s behind".to_owned())
}

fn warning() -> Verdict {
    Verdict::Warning("a little behind".to_owned())
}
