//! Events to receivers beside Redis: in order, until each is confirmed, whatever the receiver and this process do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use xdb::alerts::{Alerts, Delivery, Extent, Judged, NotDelivered, Rules, test_event};
use xdb::config::{Endpoint, Notify, NotifyFormat};
use xdb::model::{Finding, Scope, Severity, Verdict};
use xdb::store::Store;

use super::{critical, db1, now, warning};
use crate::harness::{Receiver, SILENT};

const SECRET: &str = "hush-hush";

fn notify(receiver: &Receiver, format: NotifyFormat) -> Notify {
    Notify {
        name: "pager".to_owned(),
        format,
        url: Endpoint::Url(format!("http://{}/{SECRET}", receiver.address).into()),
        token_file: None,
        minimum_severity: Severity::Unknown,
        ca_cert_file: None,
    }
}

/// A node whose alerts go to one receiver; no Redis is there.
struct Node {
    runtime: Runtime,
    alerts: Alerts,
    to: xdb::alerts::Receiver,
}

impl Node {
    fn new(directory: &Path, notify: &Notify) -> Self {
        let to = xdb::alerts::Receiver::new(notify);
        let store = Store::open(directory, now()).unwrap().store;
        let rules = Rules {
            subscriptions: vec![to.subscription()],
            ..Rules::default()
        };
        Self {
            runtime: Runtime::new().unwrap(),
            alerts: Alerts::new(store, "main", "db1").with_rules(rules),
            to,
        }
    }

    fn record(&self, check: &str, verdict: Verdict) {
        self.record_of(check, "", db1(), verdict);
    }

    fn record_of(&self, check: &str, object: &str, scope: Scope, verdict: Verdict) {
        let judged = vec![Judged {
            finding: Finding::new(check, scope, object, verdict),
            hold: Duration::ZERO,
        }];
        let recorded = self.alerts.record(judged, Extent::Part, now());
        self.runtime.block_on(recorded).unwrap();
    }

    fn deliver(&self) -> Result<Delivery, NotDelivered> {
        self.runtime.block_on(self.alerts.deliver_to(&self.to))
    }

    /// Until nothing waits; gives how many were confirmed.
    fn deliver_all(&self) -> usize {
        let mut confirmed = 0;
        loop {
            match self.deliver().unwrap() {
                Delivery::Idle => return confirmed,
                _ => confirmed += 1,
            }
        }
    }
}

/// What the receiver confirmed, as "kind check".
fn confirmed(receiver: &Receiver) -> Vec<String> {
    let received = receiver.received().into_iter();
    let good = received.filter(|one| one.status == 200);
    good.map(|one| {
        let text = |name: &str| one.body[name].as_str().unwrap_or("?").to_owned();
        format!("{} {}", text("kind"), text("check"))
    })
    .collect()
}

#[test]
fn a_receiver_that_fails_or_is_gone_for_long_gets_all_in_order_and_once() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start();
    let node = Node::new(directory.path(), &notify(&receiver, NotifyFormat::Json));
    receiver.answer(500);
    node.record("disk", warning());
    for _ in 0..3 {
        let error = node.deliver().unwrap_err().to_string();
        assert!(error.contains("answered 500"), "{error}");
        assert!(!error.contains(SECRET), "{error}");
    }
    assert_eq!(confirmed(&receiver), [""; 0]);

    // Gone: nothing listens at its port, and a hundred alerts come and go.
    let address = receiver.address;
    drop(receiver);
    for number in 0..100 {
        let check = format!("check-{number}");
        node.record(&check, critical());
        node.record(&check, Verdict::Ok);
        if number % 10 == 0 {
            let error = format!("{:?}", node.deliver().unwrap_err());
            assert!(error.contains("Connect"), "{error}");
            assert!(!error.contains(SECRET), "{error}");
        }
    }
    let receiver = Receiver::at(address);
    assert_eq!(node.deliver_all(), 201);
    assert_eq!(node.deliver_all(), 0);
    let mut expected = vec!["raised disk".to_owned()];
    for number in 0..100 {
        expected.push(format!("raised check-{number}"));
        expected.push(format!("resolved check-{number}"));
    }
    assert_eq!(confirmed(&receiver), expected);
    let first = &receiver.received()[0];
    assert_eq!(first.line, format!("POST /{SECRET}"));
    assert_eq!(first.body["cluster"], "main");
}

#[test]
fn a_receiver_that_never_answers_holds_up_nothing_for_long() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start();
    let node = Node::new(directory.path(), &notify(&receiver, NotifyFormat::Json));
    receiver.answer(SILENT);
    node.record("disk", warning());
    let began = Instant::now();
    let error = node.deliver().unwrap_err().to_string();
    assert!(error.contains("did not answer within 10 s"), "{error}");
    assert_eq!(receiver.received().len(), 1, "it did get the request");
    assert!(began.elapsed() >= Duration::from_secs(10));
    // The second attempt is the same event by its id.
    receiver.answer(200);
    assert_eq!(node.deliver_all(), 1);
    let received = receiver.received();
    assert_eq!(received[0].body["id"], received[1].body["id"]);
}

#[test]
fn a_process_killed_between_send_and_note_sends_the_same_event_again_under_its_id() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start();
    let settings = notify(&receiver, NotifyFormat::Json);
    let node = Node::new(directory.path(), &settings);
    node.record("disk", warning());
    node.record("lag", critical());
    // Killed between store and send: what the disk holds then.
    let left = TempDir::new().unwrap();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), left.path().join(entry.file_name())).unwrap();
    }
    assert_eq!(node.deliver_all(), 2);
    let again = Node::new(left.path(), &settings);
    assert_eq!(again.deliver_all(), 2);
    let told = confirmed(&receiver);
    assert_eq!(
        told,
        ["raised disk", "raised lag", "raised disk", "raised lag"]
    );
    let ids: Vec<String> = receiver
        .received()
        .iter()
        .map(|one| {
            let id = one.body["id"].as_str().unwrap().to_owned();
            assert!(one.headers.contains(&format!("idempotency-key: {id}")));
            id
        })
        .collect();
    assert_eq!(ids[..2], ids[2..], "so a receiver can tell");
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_receiver_is_told_from_its_minimum_on_and_never_of_itself() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start();
    let settings = Notify {
        minimum_severity: Severity::Critical,
        ..notify(&receiver, NotifyFormat::Json)
    };
    let node = Node::new(directory.path(), &settings);
    node.record("disk", warning());
    node.record("disk", critical());
    node.record("disk", warning());
    node.record("disk", Verdict::Ok);
    node.record_of("alert-delivery", "pager", db1(), critical());
    node.record_of("alert-delivery", "chat", db1(), critical());
    node.deliver_all();
    assert_eq!(
        confirmed(&receiver),
        ["escalated disk", "lowered disk", "raised alert-delivery"]
    );
}

#[test]
fn content_that_is_refused_is_left_out_and_a_key_in_a_file_is_sent_and_never_shown() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start();
    let token = directory.path().join("key");
    let settings = Notify {
        token_file: Some(token.clone()),
        ..notify(&receiver, NotifyFormat::PagerDuty)
    };
    let node = Node::new(directory.path(), &settings);
    node.record("disk", warning());
    let error = node.deliver().unwrap_err().to_string();
    assert!(error.contains("cannot read"), "{error}");
    let write = |mode| {
        std::fs::write(&token, format!("{SECRET}\n")).unwrap();
        std::fs::set_permissions(&token, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    write(0o644);
    let error = node.deliver().unwrap_err().to_string();
    assert!(error.contains("every user"), "{error}");
    assert_eq!(receiver.received().len(), 0, "nothing was sent");

    write(0o640);
    receiver.answer(400);
    let left_out = node.deliver().unwrap();
    assert!(matches!(left_out, Delivery::LeftOut(_)), "{left_out:?}");
    assert!(!format!("{left_out:?}").contains(SECRET));
    receiver.answer(202);
    node.record("lag", critical());
    assert_eq!(node.deliver_all(), 1);
    let received = receiver.received();
    let body = &received.last().unwrap().body;
    assert_eq!(body["routing_key"], SECRET);
    assert_eq!(body["dedup_key"], "xdb/main/lag/db1/");
    let test = test_event("db1", "eve", now());
    let sent = node.to.send_test(&test, "main");
    node.runtime.block_on(sent).unwrap();
    let actions: Vec<_> = receiver.received()[2..]
        .iter()
        .map(|one| one.body["event_action"].clone())
        .collect();
    assert_eq!(actions, ["trigger", "resolve"]);
}
