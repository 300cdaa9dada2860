//! The nodes in the one verdict: what they say, their silence, and their alerts.

use super::tests::{NOW, at, judged, known, peer, promotion, verdict, view};
use super::*;
use crate::model::{AlertMarks, Finding, Severity, Verdict};

#[test]
fn nodes_are_judged_by_what_they_say_and_by_their_silence() {
    let with = |peers: Vec<Peer>| Knowledge { peers, ..known() };
    let mut other = view(true, 1);
    if let Some(sample) = &mut other.sample {
        sample.system_identifier = 8;
    }
    let mut superseded = view(false, 1);
    superseded.record_supersession(promotion());
    let mut fenced = view(false, 1);
    fenced.failing = Some((at(NOW - 3), "refused".to_owned()));
    for (own, peers, check, words) in [
        (
            view(false, 1),
            vec![peer("db2", view(false, 1), NOW)],
            "primary",
            "db1 and db2 are primaries at once",
        ),
        (
            view(true, 1),
            vec![peer("db2", view(true, 1), NOW)],
            "primary",
            "there is no primary: db1 is replica, db2 is replica",
        ),
        // Two that do not answer: what they said last still stands.
        (
            fenced.clone(),
            vec![peer("db2", fenced.clone(), NOW)],
            "primary",
            "db1 and db2 are primaries at once",
        ),
        (
            view(false, 1),
            vec![peer("db2", other, NOW)],
            "primary",
            "another cluster",
        ),
        (
            view(false, 1),
            vec![peer("db2", view(true, 1), NOW - 61)],
            "node",
            "db2 was last heard of 61 s ago",
        ),
        (
            superseded.clone(),
            vec![peer("db2", view(false, 2), NOW)],
            "node",
            "timeline 2 exists",
        ),
        (
            view(false, 2),
            vec![peer("db2", superseded, NOW)],
            "node",
            "timeline 2 exists",
        ),
    ] {
        let status = judged(&own, &with(peers));
        let verdict = verdict(&status, check);
        assert!(
            matches!(&verdict, Verdict::Critical(reason) if reason.contains(words)),
            "{words}: {status:?}"
        );
    }
    // What a server was before it was fenced, or its node fell silent, is no second primary.
    let mut unreachable = peer("db2", view(false, 1), NOW - 5);
    unreachable.failed("refused".to_owned(), at(NOW));
    for (own, other) in [
        (view(false, 2), peer("db2", fenced.clone(), NOW)),
        (fenced, peer("db2", view(false, 2), NOW)),
        (view(false, 2), unreachable),
    ] {
        let status = judged(&own, &with(vec![other]));
        assert_eq!(verdict(&status, "primary"), Verdict::Ok, "{status:?}");
    }
    // Never heard of: whether it runs is not known.
    let status = judged(&view(false, 1), &with(vec![Peer::new("db2:8009")]));
    assert_eq!(verdict(&status, "node").word(), "unknown");
}

#[test]
fn a_peer_that_was_not_heard_since_a_restart_keeps_the_name_of_its_alert() {
    let standing = |name: &str| Standing {
        key: format!("node/cluster/{name}"),
        severity: Severity::Critical,
        since: at(NOW - 600),
        reason: "was last heard of 10 min ago".to_owned(),
        runbook: None,
        marks: AlertMarks::default(),
    };
    let unheard = |address: &str| {
        let mut peer = Peer::new(address);
        peer.failed("refused".to_owned(), at(NOW - 61));
        peer
    };
    let db2 = || unheard("10.0.2.31:8009");
    let heard = || peer("db2", view(true, 1), NOW);
    for (what, peers, alerts, names) in [
        ("no alert stands", vec![db2()], vec![], vec!["10.0.2.31"]),
        ("its alert stands", vec![db2()], vec!["db2"], vec!["db2"]),
        (
            "beside one by its address",
            vec![db2()],
            vec!["db2", "10.0.2.31"],
            vec!["db2"],
        ),
        (
            "the alert is another peer's",
            vec![heard(), unheard("10.0.2.32:8009")],
            vec!["db2"],
            vec!["db2", "10.0.2.32"],
        ),
        (
            "two that were not heard",
            vec![db2(), unheard("10.0.2.32:8009")],
            vec!["db2"],
            vec!["10.0.2.31", "10.0.2.32"],
        ),
        (
            "two alerts",
            vec![db2()],
            vec!["db2", "db3"],
            vec!["10.0.2.31"],
        ),
        ("heard", vec![heard()], vec!["db2"], vec!["db2"]),
    ] {
        let known = Knowledge {
            peers,
            alerts: alerts.into_iter().map(standing).collect(),
            ..known()
        };
        let status = judged(&view(false, 1), &known);
        let found = status.findings.iter().filter(|it| it.check == "node");
        let found: Vec<_> = found.map(|it| it.object.as_str()).collect();
        let expected: Vec<_> = std::iter::once("db1").chain(names).collect();
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn alerts_of_all_nodes_count_once() {
    let alert = Standing {
        key: "archiver/db1/".to_owned(),
        severity: Severity::Critical,
        since: at(NOW - 60),
        reason: "archive_command fails".to_owned(),
        runbook: None,
        marks: AlertMarks::default(),
    };
    let mut known = known();
    known.alerts = vec![alert.clone(), {
        // What is judged here is not taken from its own alert.
        let mut stale = alert.clone();
        stale.key = "primary/cluster/".to_owned();
        stale
    }];
    if let Some((_, state)) = &mut known.peers[0].last_answer {
        state.alerts = vec![alert];
    }
    let status = judged(&view(false, 1), &known);
    let bad = |finding: &&Finding| finding.verdict != Verdict::Ok;
    let bad: Vec<_> = status.findings.iter().filter(bad).collect();
    assert_eq!(bad.len(), 1, "{bad:?}");
    assert_eq!(
        (bad[0].check.as_str(), status.verdict.as_str()),
        ("archiver", "critical")
    );
}
