//! The headline in every state of the cluster, the live RPO on each node, and the fields of `/api/status`.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::tests::{NOW, at, evidence, judged, known, peer, promotion, verdict, view};
use super::*;
use crate::model::{Lsn, Timeline, Verdict};

fn with(change: impl Fn(&mut Knowledge)) -> Knowledge {
    let mut known = known();
    change(&mut known);
    known
}

fn with_evidence(change: impl Fn(&mut Evidence)) -> Knowledge {
    with(|known| known.evidence.iter_mut().for_each(&change))
}

fn with_backup(change: impl Fn(&mut Recoverable)) -> Knowledge {
    with_evidence(|evidence| evidence.base_backup.iter_mut().for_each(&change))
}

fn with_forecast(change: impl Fn(&mut RestoreForecast)) -> Knowledge {
    with_evidence(|evidence| evidence.forecast.iter_mut().for_each(&change))
}

fn away(evidence: &mut Evidence) {
    evidence.base_backup_error = Some("S3 does not answer".to_owned());
    evidence.base_backup_read_at = Some(at(NOW - 300));
}

fn lost_since(known: &mut Knowledge, second: i64) {
    known.rpo = Some(Rpo {
        at: at(NOW),
        archived: None,
        loss: Loss::Since {
            commit_at: at(second),
        },
    });
}

const WELL: &str =
    "If db1 is lost now: recoverable to 0/3000000 (archived 8 s ago), restore takes about 1.6 s";
const PROVEN: &str = "last measured RTO 2.1 s; proven 40 s ago on db2: base_1 to 0/2000000";

#[test]
fn the_headline_tells_one_story_in_every_state() {
    let states: Vec<(&str, Knowledge, String)> = vec![
        ("well", known(), format!("{WELL}; RPO 0 s; {PROVEN}")),
        (
            "not checked",
            with(|known| known.evidence = None),
            "recoverability unknown: the buckets have not been checked yet".to_owned(),
        ),
        (
            "S3 away since the start",
            with(|known| {
                known.evidence = Some(Evidence::unread(at(NOW), "S3 does not answer"));
            }),
            "recoverability unknown: S3 does not answer".to_owned(),
        ),
        (
            "S3 away for a while",
            with(|known| {
                lost_since(known, NOW - 200);
                known.evidence.iter_mut().for_each(away);
            }),
            format!("{WELL}; RPO 3 min; {PROVEN}; last read 5 min ago, because S3 does not answer"),
        ),
        (
            "no backup",
            with_evidence(|evidence| (evidence.base_backup, evidence.forecast) = (None, None)),
            "If db1 is lost now: nothing is recoverable from the archive, because there is no base backup".to_owned(),
        ),
        (
            "the newest backup is broken",
            with_backup(|backup| backup.unusable = Some("a part is missing".to_owned())),
            format!("If db1 is lost now: the newest base backup base_1 cannot be restored: a part is missing; {PROVEN}"),
        ),
        (
            "a gap",
            with_backup(|backup| backup.gap = Some("0000…4".to_owned())),
            format!("If db1 is lost now: recoverable to 0/3000000 (archived 8 s ago) only, because WAL is missing (0000…4), restore takes about 1.6 s; RPO 0 s; {PROVEN}"),
        ),
        (
            "commits wait",
            with(|known| lost_since(known, NOW - 12)),
            format!("{WELL}; RPO 12 s; {PROVEN}"),
        ),
        (
            "no proof",
            with_evidence(|evidence| evidence.proof = None),
            format!("{WELL}; RPO 0 s; no restore test has passed yet"),
        ),
        (
            "the newest backup has no proof",
            with_evidence(|evidence| {
                evidence.proof.iter_mut().for_each(|proof| {
                    proof.backup = Some("base_0".to_owned());
                    proof.newest_backup_proven = Some(false);
                });
            }),
            format!("{WELL}; RPO 0 s; last measured RTO 2.1 s; proven 40 s ago on db2: base_0 to 0/2000000; the newest base backup base_1 has no passed restore test"),
        ),
        (
            "a range",
            with_forecast(|forecast| forecast.high_secs = Some(40.0)),
            format!("If db1 is lost now: recoverable to 0/3000000 (archived 8 s ago), restore takes 1.5 s to 40 s; RPO 0 s; {PROVEN}"),
        ),
        (
            "no forecast",
            with_forecast(|forecast| {
                (forecast.secs, forecast.low_secs, forecast.high_secs) = (None, None, None);
                forecast.based_on = "no restore test has passed yet".to_owned();
            }),
            format!("If db1 is lost now: recoverable to 0/3000000 (archived 8 s ago), restore time unknown: no restore test has passed yet; RPO 0 s; {PROVEN}"),
        ),
        (
            "not measured",
            with(|known| known.rpo = None),
            format!("{WELL}; RPO unknown (it has not been measured yet); {PROVEN}"),
        ),
    ];
    for (what, known, expected) in states {
        assert_eq!(judged(&view(false, 1), &known).answer, expected, "{what}");
    }
    // After a failover the new primary is named, and without a primary none is.
    let old = with(|known| known.peers = vec![peer("db2", view(false, 2), NOW)]);
    let mut superseded = view(false, 1);
    superseded.record_supersession(promotion());
    let answer = judged(&superseded, &old).answer;
    assert!(answer.starts_with("If db2 is lost now: "), "{answer}");
    let killed = with(|known| {
        let mut db1 = peer("db1", view(false, 1), NOW - 30);
        db1.failed("refused".to_owned(), at(NOW - 29));
        known.peers = vec![db1];
    });
    let mut promoted = view(false, 1);
    if let Some(sample) = &mut promoted.sample {
        sample.timeline = Timeline(2);
    }
    let answer = evaluate("main", "db2", &promoted, &killed, at(NOW)).answer;
    assert!(answer.starts_with("If db2 is lost now: "), "{answer}");
    let none = with(|known| known.peers.clear());
    let answer = judged(&view(true, 1), &none).answer;
    assert!(
        answer.starts_with("If the primary is lost now: "),
        "{answer}"
    );
}

/// What db2 shows of the RPO that db1 measured at `measured` and was heard with at `heard`.
fn on_the_replica(loss: Loss, measured: i64, heard: i64) -> LiveRpo {
    let mut db1 = peer("db1", view(false, 1), heard);
    if let Some((_, state)) = &mut db1.last_answer {
        state.at = at(measured);
        state.rpo = Some(Rpo {
            at: at(measured),
            archived: None,
            loss,
        });
    }
    let known = with(|known| {
        known.rpo = None;
        known.peers = vec![db1.clone()];
    });
    judged(&view(true, 1), &known).rpo
}

#[test]
fn a_replica_shows_the_primarys_rpo_by_the_primarys_clock() {
    // db1's clock is an hour ahead.
    let ahead = NOW + 3600;
    let since = |second| Loss::Since {
        commit_at: at(second),
    };
    let rpo = on_the_replica(since(ahead - 30), ahead, NOW - 2);
    assert_eq!((rpo.secs, rpo.reason), (Some(32.0), None));
    assert_eq!(
        on_the_replica(Loss::Nothing, ahead, NOW - 2).secs,
        Some(0.0)
    );
    // Commits may have come since a measurement that is some seconds old.
    let rpo = on_the_replica(Loss::Nothing, NOW - 20, NOW - 20);
    assert_eq!((rpo.secs, rpo.at_most), (Some(20.0), true));
    assert_eq!(rpo.reason.as_deref(), Some("last measured by db1 20 s ago"));
    let rpo = on_the_replica(Loss::Nothing, NOW - 5, NOW - 5);
    assert_eq!((rpo.secs, rpo.at_most), (Some(0.0), false));
    // Silent for long: a loss ages, and that there was none says nothing of now.
    let rpo = on_the_replica(since(NOW - 200), NOW - 90, NOW - 90);
    assert_eq!(rpo.secs, Some(200.0));
    let rpo = on_the_replica(Loss::Nothing, NOW - 90, NOW - 90);
    assert_eq!(rpo.secs, None);
    assert!(rpo.reason.unwrap().contains("by db1 90 s ago"));
}

#[test]
fn the_rpo_is_judged_by_its_objective_and_what_is_not_known_is_not_ok() {
    let most = |second| {
        with(|known| {
            known.rpo = Some(Rpo {
                at: at(NOW),
                archived: None,
                loss: Loss::AtMostSince {
                    at: at(second),
                    reason: "the WAL cannot be read".to_owned(),
                },
            });
        })
    };
    let lost = |second: i64| with(|known| lost_since(known, second));
    for (what, known, word) in [
        ("nothing", known(), "ok"),
        ("a little", lost(NOW - 299), "ok"),
        ("over the objective", lost(NOW - 300), "warning"),
        ("far over it", lost(NOW - 900), "critical"),
        ("at most a little", most(NOW - 299), "ok"),
        ("at most too much", most(NOW - 900), "unknown"),
        ("not measured", with(|known| known.rpo = None), "unknown"),
        (
            "S3 away",
            with(|known| {
                lost_since(known, NOW - 400);
                known.evidence.iter_mut().for_each(away);
            }),
            "warning",
        ),
        // Another finding says that nothing can be restored.
        (
            "no backup",
            with_evidence(|evidence| evidence.base_backup = None),
            "ok",
        ),
    ] {
        let status = judged(&view(false, 1), &known);
        assert_eq!(verdict(&status, "archive-rpo").word(), word, "{what}");
    }
    // A commit of this very moment is a loss.
    let young = judged(&view(false, 1), &lost(NOW)).rpo;
    assert_eq!(young.secs, Some(0.1));
    // A replica without peers has no other node to ask.
    let alone = with(|known| (known.peers, known.rpo) = (Vec::new(), None));
    let status = judged(&view(true, 1), &alone);
    assert_eq!(status.verdict, "ok", "{status:?}");
    let slow = with_forecast(|forecast| forecast.secs = Some(61.0));
    let found = verdict(&judged(&view(false, 1), &slow), "restore-objective");
    assert_eq!(
        found,
        Verdict::Warning(
            "a restore from now takes about 61 s, over its objective of 60 s".to_owned()
        )
    );
    // Tests that were held back say nothing of the objective.
    let slow = with_forecast(|forecast| {
        (forecast.secs, forecast.throttled) = (Some(61.0), true);
    });
    let found = verdict(&judged(&view(false, 1), &slow), "restore-objective");
    assert_eq!(found, Verdict::Ok);
}

#[test]
fn a_warning_on_the_restore_time_ends_with_its_objective_and_stands_while_the_forecast_is_unknown()
{
    let states: [(&str, Knowledge, bool); 5] = [
        (
            "no objective",
            with(|known| known.objectives.rto = None),
            true,
        ),
        (
            "no objective, no look",
            with(|known| (known.objectives.rto, known.evidence) = (None, None)),
            true,
        ),
        (
            "throttled",
            with_forecast(|forecast| (forecast.throttled, forecast.secs) = (true, None)),
            true,
        ),
        (
            "no estimate",
            with_forecast(|forecast| forecast.secs = None),
            false,
        ),
        ("no look", with(|known| known.evidence = None), false),
    ];
    for (what, known, judges) in states {
        let status = judged(&view(false, 1), &known);
        let mut findings = status.findings.iter();
        let found = findings.find(|one| one.check == "restore-objective");
        assert_eq!(found.is_some(), judges, "{what}");
        assert!(found.is_none_or(|one| one.verdict == Verdict::Ok), "{what}");
    }
}

#[test]
fn what_could_not_be_read_holds_what_was_read_before() {
    let before = evidence();
    let now = Evidence::unread(at(NOW + 15), "S3 does not answer").holding(Some(&before));
    assert_eq!(now.base_backup, before.base_backup);
    assert_eq!(now.base_backup_read_at, Some(at(NOW)));
    assert_eq!(now.base_backup_error.as_deref(), Some("S3 does not answer"));
    assert_eq!((&now.dump, &now.proof), (&before.dump, &before.proof));
    assert_eq!((&now.faults, now.at), (&before.faults, at(NOW + 15)));
    let fresh = evidence().holding(Some(&Evidence::unread(at(0), "x")));
    assert_eq!(fresh, evidence());
}

/// The names of the fields of `value`, with those of its objects below them.
fn fields(value: &Value, prefix: &str, names: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                let path = format!("{prefix}{name}");
                fields(value, &format!("{path}."), names);
                names.push(path);
            }
        }
        Value::Array(all) => all
            .iter()
            .take(1)
            .for_each(|value| fields(value, &format!("{prefix}[]."), names)),
        _ => {}
    }
}

/// A field may be added; one that is here is read by somebody, and stays.
#[test]
fn the_document_of_api_status_has_these_fields() {
    let known = with(|known| {
        known.positions.push(at(NOW), Lsn(200));
        known.objectives.rto = Some(Duration::from_secs(60));
    });
    let mut own = view(false, 1);
    own.failing = None;
    let status = judged(&own, &known);
    let json = serde_json::to_value(&status).unwrap();
    let mut names = Vec::new();
    fields(&json, "", &mut names);
    names.sort();
    let expected = "\
answer at cluster evidence evidence.at evidence.base_backup evidence.base_backup.acknowledged evidence.base_backup.backup \
evidence.base_backup.finished_at evidence.base_backup.gap evidence.base_backup.to evidence.base_backup.to.archived_at \
evidence.base_backup.to.lsn evidence.base_backup.to.timeline evidence.base_backup.unusable evidence.base_backup_error \
evidence.base_backup_read_at evidence.doubts evidence.doubts.foreign evidence.doubts.gap evidence.doubts.incomplete \
evidence.dump evidence.dump.at evidence.dump.set evidence.dump_error evidence.forecast evidence.forecast.based_on \
evidence.forecast.high_secs evidence.forecast.low_secs evidence.forecast.secs evidence.forecast.throttled evidence.proof \
evidence.proof.at evidence.proof.backup evidence.proof.lsn evidence.proof.newest_backup_proven evidence.proof.node \
evidence.proof.rpo_secs evidence.proof.rto_secs evidence.proof.timeline evidence.proof_error findings findings.[].check \
findings.[].node findings.[].object findings.[].reason findings.[].runbook findings.[].threshold findings.[].value \
findings.[].verdict marked nodes nodes.[].heard_at nodes.[].hostname nodes.[].lag_at_least nodes.[].lag_bytes nodes.[].lag_secs \
nodes.[].position nodes.[].role nodes.[].timeline nodes.[].trouble reporter rpo rpo.at_most rpo.critical_secs \
rpo.measured_at rpo.oldest_commit_at rpo.reason rpo.secs rpo.warning_secs rto rto.based_on rto.high_secs rto.low_secs \
rto.measured_at rto.measured_secs rto.objective_secs rto.secs v verdict";
    assert_eq!(names.join(" "), expected);
    assert_eq!((&json["v"], &json["verdict"]), (&1.into(), &"ok".into()));
    // No shape of Rust's in any state: neither an enum's variant as a key, nor a tuple.
    let unread = Evidence::unread(Timestamp::UNIX_EPOCH, "S3 does not answer");
    let away = with(|known| known.evidence = Some(unread.clone()));
    for known in [known, away] {
        let text = serde_json::to_string(&judged(&own, &known)).unwrap();
        for shape in ["\"Ok\"", "\"Err\"", "\"Some\"", "\"None\"", "[1,"] {
            assert!(!text.contains(shape), "{shape}: {text}");
        }
    }
}
