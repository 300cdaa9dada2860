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

use super::{Bench, critical, db1, now, warning};
use crate::harness::{Receiver, SILENT, SLOW};

const SECRET: &str = "hush-hush";
const HOUR: u64 = 3600;

pub(super) fn notify(receiver: &Receiver, format: NotifyFormat) -> Notify {
    Notify {
        name: "pager".to_owned(),
        format,
        url: Endpoint::Url(format!("http://{}/{SECRET}", receiver.address).into()),
        token_file: None,
        minimum_severity: Severity::Unknown,
        ca_cert_file: None,
    }
}

/// A node whose alerts go to one receiver, or to several; no Redis is there.
struct Node {
    runtime: Runtime,
    alerts: Alerts,
    to: Vec<xdb::alerts::Receiver>,
}

impl Node {
    fn new(directory: &Path, notify: &Notify) -> Self {
        Self::with(directory, std::slice::from_ref(notify))
    }

    fn with(directory: &Path, all: &[Notify]) -> Self {
        let to: Vec<_> = all.iter().map(xdb::alerts::Receiver::new).collect();
        let store = Store::open(directory, now()).unwrap().store;
        let rules = Rules {
            subscriptions: to.iter().map(|to| to.subscription()).collect(),
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
        self.deliver_at(HOUR)
    }

    fn deliver_at(&self, secs: u64) -> Result<Delivery, NotDelivered> {
        let at = now() + Duration::from_secs(secs);
        let delivered = self.alerts.deliver_to(&self.to[0], at);
        self.runtime.block_on(delivered)
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

/// A web server as the receiver "pager", and rules by which it gets everything.
pub(super) fn receiver() -> (Receiver, xdb::alerts::Receiver, Rules) {
    let web = Receiver::start();
    let to = xdb::alerts::Receiver::new(&notify(&web, NotifyFormat::Json));
    let rules = Rules {
        subscriptions: vec![to.subscription()],
        ..Rules::default()
    };
    (web, to, rules)
}

/// Sends what may be sent so many seconds after `now`; gives how many events were confirmed.
pub(super) fn send_to(
    bench: &Bench,
    node: &super::Node,
    to: &xdb::alerts::Receiver,
    secs: u64,
) -> usize {
    let at = now() + Duration::from_secs(secs);
    let send = || bench.runtime.block_on(node.alerts.deliver_to(to, at));
    std::iter::from_fn(|| match send().unwrap() {
        Delivery::Idle => None,
        delivery => Some(delivery),
    })
    .count()
}

/// What the receiver confirmed, as "kind check".
pub(super) fn confirmed(receiver: &Receiver) -> Vec<String> {
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
    let web = [(); 3].map(|()| Receiver::start());
    let names = ["silent", "slow", "good"];
    let all = [0, 1, 2].map(|at| Notify {
        name: names[at].to_owned(),
        ..notify(&web[at], NotifyFormat::Json)
    });
    let node = Node::with(directory.path(), &all);
    web[0].answer(SILENT);
    web[1].answer(SLOW);
    node.record("disk", warning());
    let began = Instant::now();
    let [silent, slow, good] = &node.to[..] else {
        unreachable!()
    };
    let later = now() + Duration::from_secs(HOUR);
    let errors = node.runtime.block_on(async {
        let hang = futures_util::future::join(
            node.alerts.deliver_to(silent, later),
            node.alerts.deliver_to(slow, later),
        );
        tokio::pin!(hang);
        // The others hang meanwhile.
        tokio::select! {
            ended = &mut hang => panic!("{ended:?}"),
            delivered = node.alerts.deliver_to(good, later) => {
                assert!(matches!(delivered, Ok(Delivery::Confirmed)), "{delivered:?}");
            }
        }
        hang.await
    });
    for error in [errors.0.unwrap_err(), errors.1.unwrap_err()] {
        let error = error.to_string();
        assert!(error.contains("did not answer within 10 s"), "{error}");
    }
    assert!(began.elapsed() >= Duration::from_secs(10));
    assert_eq!(confirmed(&web[2]), ["raised disk"]);
    for receiver in &web[..2] {
        assert_eq!(receiver.received().len(), 1, "it did get the request");
    }
    // The second attempt is the same event by its id.
    web[0].answer(200);
    let again = node.runtime.block_on(node.alerts.deliver_to(silent, later));
    assert!(matches!(again, Ok(Delivery::Confirmed)), "{again:?}");
    let received = web[0].received();
    assert_eq!(received[0].body["id"], received[1].body["id"]);
}

#[test]
fn what_another_node_answers_for_meanwhile_is_not_sent_late() {
    let directory = TempDir::new().unwrap();
    let receiver = Receiver::start();
    let node = Node::new(directory.path(), &notify(&receiver, NotifyFormat::Json));
    node.record("disk", warning());
    node.record("lag", warning());
    node.record("over", warning());
    node.record("over", Verdict::Ok);
    let forgotten = node.alerts.forget(|key| key.check == "disk");
    node.runtime.block_on(forgotten).unwrap();
    let first = node.deliver_at(61).unwrap();
    assert!(matches!(first, Delivery::Skipped), "{first:?}");
    node.deliver_all();
    assert_eq!(
        confirmed(&receiver),
        ["raised lag", "raised over", "resolved over"]
    );
    // One that has just been forgotten was reported by nobody else yet.
    node.record("disk", warning());
    let forgotten = node.alerts.forget(|key| key.check == "disk");
    node.runtime.block_on(forgotten).unwrap();
    let first = node.deliver_at(59).unwrap();
    assert!(matches!(first, Delivery::Confirmed), "{first:?}");
}

/// By a receiver on this machine, and certificates that the lab makes.
pub(super) fn verify_tls(bench: &Bench) {
    let directory = TempDir::new().unwrap();
    bench.lab.ok(
        "cd /tmp && for ca in ca other; do
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=$ca -keyout $ca.key -out $ca.pem
        done 2>/dev/null
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=hook -addext subjectAltName=IP:127.0.0.1 \
            -keyout hook.key -out hook.csr 2>/dev/null
        openssl x509 -req -in hook.csr -CA ca.pem -CAkey ca.key -days 2 -copy_extensions copy -out hook.pem 2>/dev/null",
    );
    let file = |name: &str| bench.lab.ok(&format!("cat /tmp/{name}"));
    for ca in ["ca.pem", "other.pem"] {
        std::fs::write(directory.path().join(ca), file(ca)).unwrap();
    }
    let receiver = Receiver::secured(&file("hook.pem"), &file("hook.key"));
    let secured = |ca: Option<&str>, host: &str| {
        let url = format!("https://{host}:{}/{SECRET}", receiver.address.port());
        let settings = Notify {
            url: Endpoint::Url(url.into()),
            ca_cert_file: ca.map(|ca| directory.path().join(ca)),
            ..notify(&receiver, NotifyFormat::Json)
        };
        let state = TempDir::new().unwrap();
        let node = Node::new(state.path(), &settings);
        node.record("disk", warning());
        node.deliver()
    };
    for (ca, host, reason) in [
        (Some("other.pem"), "127.0.0.1", "UnknownIssuer"),
        (None, "127.0.0.1", "UnknownIssuer"),
        (Some("ca.pem"), "localhost", "not valid for name"),
        (Some("none.pem"), "127.0.0.1", "No such file"),
    ] {
        let error = secured(ca, host).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("no TLS with https://"), "{text}");
        assert!(text.contains(reason), "{text}");
        assert!(!format!("{error:?}").contains(SECRET), "{error:?}");
    }
    assert_eq!(receiver.received().len(), 0);
    let delivered = secured(Some("ca.pem"), "127.0.0.1");
    assert!(
        matches!(delivered, Ok(Delivery::Confirmed)),
        "{delivered:?}"
    );
    assert_eq!(confirmed(&receiver), ["raised disk"]);
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
    // A bad request is tried for an hour: something in between may refuse it.
    receiver.answer(400);
    for secs in [HOUR, 2 * HOUR - 1] {
        let error = node.deliver_at(secs).unwrap_err();
        assert!(error.to_string().contains("answered 400"), "{error}");
    }
    let left_out = node.deliver_at(2 * HOUR).unwrap();
    let Delivery::LeftOut { event, .. } = &left_out else {
        panic!("{left_out:?}");
    };
    assert_eq!(event, "raised disk/db1/");
    assert!(!format!("{left_out:?}").contains(SECRET));
    receiver.answer(202);
    node.record("lag", critical());
    assert_eq!(node.deliver_all(), 1);
    let received = receiver.received();
    let body = &received.last().unwrap().body;
    assert_eq!(body["routing_key"], SECRET);
    assert_eq!(body["dedup_key"], "xdb/main/lag/db1//critical");

    // What it cannot process is left out at once, but not all that waits.
    receiver.answer(422);
    for check in ["a", "b", "c"] {
        node.record(check, warning());
    }
    let first = node.deliver().unwrap();
    assert!(matches!(first, Delivery::LeftOut { .. }), "{first:?}");
    node.deliver().unwrap_err();
    receiver.answer(202);
    assert_eq!(node.deliver_all(), 2);
    // Nor is anything because of a wrong path, a wrong token or a limit.
    for status in [401, 404, 410, 429, 503] {
        receiver.answer(status);
        node.record(&format!("check-{status}"), warning());
        for secs in [HOUR, 10 * HOUR, 100 * HOUR] {
            node.deliver_at(secs).unwrap_err();
        }
    }
    receiver.answer(202);
    assert_eq!(node.deliver_all(), 5);
    let before = receiver.received().len();
    let test = test_event("db1", "eve", now());
    let sent = node.to[0].send_test(&test, "main");
    node.runtime.block_on(sent).unwrap();
    let mut actions: Vec<_> = receiver.received()[before..]
        .iter()
        .map(|one| one.body["event_action"].clone())
        .collect();
    assert_eq!(actions.remove(0), "trigger");
    assert!(!actions.is_empty() && actions.iter().all(|action| action == "resolve"));
    let keys = |at: usize| receiver.received()[at].body["dedup_key"].clone();
    assert_eq!(keys(before), keys(before + actions.len()));
}
