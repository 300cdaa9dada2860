//! The one verdict, on clusters made by hand.

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::model::{Lsn, Supersession, Timeline, Verdict};
use crate::postgres::Life;

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(crate) const NOW: i64 = 10_000;

pub(crate) fn view(in_recovery: bool, timeline: u32) -> View {
    let mut view = View::default();
    view.record_sample(ServerSample {
        at: at(NOW),
        in_recovery,
        timeline: Timeline(timeline),
        system_identifier: 7,
        streaming: in_recovery,
        position: Some(Lsn(if in_recovery { 100 } else { 200 })),
    });
    view
}

pub(crate) fn peer(hostname: &str, view: View, heard_at: i64) -> Peer {
    let mut peer = Peer::new(&format!("{hostname}:8009"));
    let state = NodeState::new(hostname, "0.0.0.0:8009", view, Vec::new(), at(NOW));
    peer.answered(state, at(heard_at));
    peer
}

pub(crate) fn evidence() -> Evidence {
    Evidence {
        base_backup: Some(Recoverable {
            backup: "base_1".to_owned(),
            finished_at: Some(at(NOW - 60)),
            unusable: None,
            to: Some(ArchiveEnd {
                timeline: Timeline(1),
                lsn: Lsn(0x0300_0000),
                archived_at: at(NOW - 8),
            }),
            gap: None,
            acknowledged: None,
        }),
        base_backup_error: None,
        base_backup_read_at: Some(at(NOW)),
        faults: Some(RepositoryFaults::default()),
        extent: None,
        forecast: Some(RestoreForecast {
            secs: Some(1.6),
            low_secs: Some(1.5),
            high_secs: Some(1.8),
            based_on: "4 restore tests".to_owned(),
            throttled: false,
        }),
        dump: Some(NewestDump {
            set: "20261121T120000Z".to_owned(),
            at: at(NOW - 50),
            newer_partial: None,
        }),
        dump_error: None,
        proof: Some(ProvenRestore {
            node: "db2".to_owned(),
            at: at(NOW - 40),
            backup: Some("base_1".to_owned()),
            timeline: Some(Timeline(1)),
            lsn: Some(Lsn(0x0200_0000)),
            rto_secs: Some(2.14),
            rpo_secs: Some(0.0),
            newest_backup_proven: Some(true),
        }),
        proof_error: None,
        ..Evidence::unread(at(NOW), "")
    }
}

/// db1 leads, db2 follows, and db1 judges.
pub(crate) fn known() -> Knowledge {
    let mut positions = LsnRing::default();
    positions.push(at(NOW - 5), Lsn(150));
    positions.push(at(NOW), Lsn(200));
    Knowledge {
        peers: vec![peer("db2", view(true, 1), NOW)],
        positions,
        evidence: Some(evidence()),
        alerts: Vec::new(),
        silences: Vec::new(),
        rpo: Some(Rpo {
            at: at(NOW),
            archived: None,
            loss: Loss::Nothing,
        }),
        server_ahead: SignedDuration::ZERO,
        objectives: Objectives {
            rpo_warning: Some(Duration::from_mins(5)),
            rpo_critical: Some(Duration::from_mins(15)),
            rto: Some(Duration::from_secs(60)),
        },
        timelines: TimelinesSeen::default(),
        server: None,
    }
}

pub(super) fn judged(view: &View, known: &Knowledge) -> Status {
    evaluate("main", "db1", view, known, at(NOW))
}

pub(super) fn verdict(status: &Status, check: &str) -> Verdict {
    let mut findings = status.findings.iter();
    let found = findings.find(|finding| {
        finding.check == check && (finding.verdict != Verdict::Ok || check != "node")
    });
    found.map_or(Verdict::Ok, |finding| finding.verdict.clone())
}

#[test]
fn a_cluster_that_is_well_gets_its_answer() {
    let status = judged(&view(false, 1), &known());
    assert_eq!(
        (status.verdict.as_str(), status.answer.as_str()),
        (
            "ok",
            "If db1 is lost now: recoverable to 0/3000000 (archived 8 s ago), restore takes about 1.6 s; RPO 0 s; last measured RTO 2.1 s; proven 40 s ago on db2: base_1 to 0/2000000"
        )
    );
    let shown: Vec<_> = status
        .nodes
        .iter()
        .map(|node| (node.hostname.as_str(), node.role.as_deref(), node.lag_bytes))
        .collect();
    assert_eq!(
        shown,
        [
            ("db1", Some("primary"), None),
            ("db2", Some("replica"), Some(100))
        ]
    );
    assert_eq!(status.nodes[1].lag_secs, Some(5.0));
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
}

#[test]
fn a_primary_that_is_down_or_cannot_be_reached_is_critical() {
    let seen_from_db2 = |primary: Peer| {
        let known = Knowledge {
            peers: vec![primary],
            ..known()
        };
        let status = evaluate("main", "db2", &view(true, 1), &known, at(NOW));
        verdict(&status, "primary")
    };
    let primary = || peer("db1", view(false, 1), NOW);
    assert_eq!(seen_from_db2(primary()), Verdict::Ok);

    let mut down = view(false, 1);
    down.failed(
        SampleFailure {
            life: Life::Down,
            reason: "connection refused".to_owned(),
        },
        at(NOW),
    );
    let found = seen_from_db2(peer("db1", down.clone(), NOW));
    assert!(
        matches!(&found, Verdict::Critical(reason) if reason.contains("is down: connection refused")),
        "{found:?}"
    );
    // So it is on the node itself.
    let own = verdict(&judged(&down, &known()), "primary");
    assert!(matches!(own, Verdict::Critical(_)), "{own:?}");

    let mut silent = primary();
    silent.last_answer = silent.last_answer.map(|(_, state)| (at(NOW - 6), state));
    silent.failing = Some((at(NOW - 5), "no answer".to_owned()));
    let found = seen_from_db2(silent);
    assert!(
        matches!(&found, Verdict::Critical(reason) if reason.contains("cannot be reached: no answer")),
        "{found:?}"
    );
}

#[test]
fn what_is_wrong_beside_the_newest_backup_is_told_by_its_own_name() {
    let with = |faults: Option<RepositoryFaults>| {
        let mut known = known();
        known.evidence.iter_mut().for_each(|evidence| {
            evidence.faults.clone_from(&faults);
        });
        judged(&view(false, 1), &known)
    };
    let told = || Some("told".to_owned());
    let faults = RepositoryFaults {
        gap: told(),
        foreign: told(),
        incomplete: told(),
    };
    let status = with(Some(faults));
    for (check, word) in [
        ("wal-gap", "warning"),
        ("foreign-backup", "critical"),
        ("backup-incomplete", "warning"),
        ("recoverability", "ok"),
    ] {
        assert_eq!(verdict(&status, check).word(), word, "{check}");
    }
    // A check that could not look makes no finding: it neither raises nor ends an alert.
    let blind = with(None);
    assert!(blind.findings.iter().all(|one| one.check != "wal-gap"));
}

#[test]
fn what_the_buckets_lack_is_told_and_what_was_not_seen_is_unknown() {
    let with = |change: fn(&mut Evidence)| {
        let mut known = known();
        known.evidence.iter_mut().for_each(change);
        judged(&view(false, 1), &known)
    };
    let backup = |change: fn(&mut Recoverable)| {
        let mut known = known();
        let evidence = known.evidence.as_mut();
        if let Some(backup) = evidence.and_then(|evidence| evidence.base_backup.as_mut()) {
            change(backup);
        }
        judged(&view(false, 1), &known)
    };
    for (status, check, word, answer) in [
        (
            with(|evidence| evidence.base_backup = None),
            "recoverability",
            "critical",
            "nothing is recoverable",
        ),
        (
            with(|evidence| evidence.base_backup_error = Some("S3 is away".to_owned())),
            "recoverability",
            "unknown",
            "because S3 is away",
        ),
        (
            backup(|backup| backup.unusable = Some("a part is gone".to_owned())),
            "recoverability",
            "critical",
            "cannot be restored: a part is gone",
        ),
        (
            backup(|backup| backup.gap = Some("0000…3".to_owned())),
            "recoverability",
            "critical",
            "recoverable to 0/3000000 (archived 8 s ago) only, because WAL is missing (0000…3)",
        ),
        (
            backup(|backup| {
                backup.gap = Some("0000…3".to_owned());
                backup.acknowledged = Some("acknowledged by anna".to_owned());
            }),
            "recoverability",
            "warning",
            "recoverable to 0/3000000 (archived 8 s ago) only, because WAL is missing (0000…3)",
        ),
        (
            with(|evidence| evidence.proof = None),
            "proof",
            "warning",
            "no restore test has passed yet",
        ),
        (
            with(|evidence| evidence.dump = None),
            "dump",
            "warning",
            "proven 40 s ago",
        ),
        (
            with(|evidence| evidence.at = at(NOW - 2000)),
            "dump",
            "unknown",
            "because the buckets were last checked 33 min ago",
        ),
    ] {
        assert_eq!(verdict(&status, check).word(), word, "{status:?}");
        assert_eq!(status.verdict, word, "{status:?}");
        assert!(status.answer.contains(answer), "{}", status.answer);
    }
    let unseen = Knowledge {
        evidence: None,
        ..known()
    };
    assert_eq!(judged(&view(false, 1), &unseen).verdict, "unknown");
}

/// The proof that db2 was promoted to timeline 2.
pub(super) fn promotion() -> Supersession {
    Supersession {
        system_identifier: 7,
        timeline: Timeline(2),
        history: "1\t0/64\tr\n".parse().unwrap(),
        proven_by: "db2 runs on it".to_owned(),
        at: at(NOW),
    }
}

#[test]
fn timelines_that_prove_nothing_are_told_and_take_nothing_away() {
    let mut known = known();
    assert_eq!(
        verdict(&judged(&view(false, 1), &known), "foreign-backup"),
        Verdict::Ok
    );
    known.timelines.claimed = vec!["Redis says so".to_owned()];
    let claimed = judged(&view(false, 1), &known);
    assert_eq!(claimed.verdict, "warning", "{claimed:?}");
    known.timelines.doubtful = vec![(Timeline(2), "it does not fit".to_owned())];
    let status = judged(&view(false, 1), &known);
    let told = status
        .findings
        .iter()
        .find(|finding| finding.object == "timeline");
    let told = told
        .and_then(|finding| finding.verdict.reason())
        .unwrap_or_default();
    assert!(
        told.contains("timeline 2") && told.contains("it does not fit"),
        "{told}"
    );
    assert_eq!(status.nodes[0].role.as_deref(), Some("primary"));
}
