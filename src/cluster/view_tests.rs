use super::*;
use crate::model::TimelineSwitch;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn view(in_recovery: bool) -> View {
    let sample = ServerSample {
        at: at(100),
        in_recovery,
        timeline: Timeline(1),
        system_identifier: 7,
        streaming: in_recovery,
        position: Some(Lsn(200)),
    };
    let mut view = View {
        pgbouncer_at: Some(at(100)),
        asked_peers: true,
        asked_archive: true,
        ..View::default()
    };
    view.record_sample(sample);
    view
}

#[test]
fn each_role_is_served_where_it_is_and_nowhere_else() {
    assert_eq!(judge_primary(&view(false), at(101)), Ok(()));
    assert!(judge_primary(&view(true), at(101)).is_err());
    assert_eq!(judge_replica(&view(true), at(101)), Ok(()));
    assert!(judge_replica(&view(false), at(101)).is_err());
    assert!(
        judge_primary(&View::default(), at(101))
            .unwrap_err()
            .contains("not sampled yet")
    );
}

fn proof(timeline: u32, switch: u64) -> Supersession {
    let left = TimelineSwitch {
        timeline: Timeline(1),
        at: Lsn(switch),
    };
    Supersession {
        system_identifier: 7,
        timeline: Timeline(timeline),
        history: TimelineHistory(vec![left]),
        proven_by: "db2 runs on it".to_owned(),
        at: at(100),
    }
}

#[test]
fn only_a_proven_timeline_supersedes_a_primary_and_no_standby() {
    for (what, in_recovery, proof, superseded_by) in [
        ("left before", false, proof(2, 100), Some(Timeline(2))),
        ("left later", false, proof(2, 300), None),
        ("absurd", false, proof(4_000_000_000, 100), None),
        ("a standby", true, proof(2, 100), None),
    ] {
        let mut view = view(in_recovery);
        assert_eq!(
            view.record_supersession(proof.clone()),
            superseded_by.is_some(),
            "{what}"
        );
        assert!(!view.record_supersession(proof), "{what}");
        assert_eq!(view.superseded_by, superseded_by, "{what}");
    }
    let mut view = view(false);
    let sample = view.sample.unwrap();
    assert!(view.record_supersession(proof(2, 100)));
    // It was rewound and follows, then leads again on a timeline of its own.
    view.record_sample(ServerSample {
        in_recovery: true,
        ..sample
    });
    assert_eq!(view.superseded_by, None);
    view.record_sample(ServerSample {
        timeline: Timeline(3),
        ..sample
    });
    assert_eq!(view.superseded_by, None);
    view.record_sample(sample);
    assert_eq!(view.superseded_by, Some(Timeline(2)));
    assert!(!view.unlearn(|proof| proof.timeline == Timeline(3)));
    assert!(view.unlearn(|proof| proof.timeline == Timeline(2)));
    assert_eq!(
        (view.highest, view.superseded_by),
        (Some(Timeline(1)), None)
    );
    // Another cluster's timelines tell nothing of this one.
    view.remember(proof(2, 100));
    view.record_sample(ServerSample {
        system_identifier: 8,
        ..sample
    });
    assert_eq!((view.proof, view.superseded_by), (None, None));
}

#[test]
fn a_primary_that_cannot_be_sampled_is_superseded_by_what_left_it_after_the_sample() {
    let refused = || SampleFailure {
        life: Life::Up,
        reason: "too many clients".to_owned(),
    };
    for (what, in_recovery, failing, written, switch, superseded_by) in [
        ("wrote on", false, true, Some(300), 250, Some(Timeline(2))),
        (
            "up to there",
            false,
            true,
            Some(250),
            250,
            Some(Timeline(2)),
        ),
        ("not so far", false, true, Some(240), 250, None),
        ("nothing known", false, true, None, 250, None),
        ("left before", false, true, None, 200, Some(Timeline(2))),
        ("sampled again", false, false, Some(300), 250, None),
        ("a standby", true, true, Some(300), 250, None),
    ] {
        let mut view = view(in_recovery);
        let sample = view.sample.unwrap();
        if failing {
            view.failed(refused(), at(101));
        }
        if let Some(written) = written {
            view.wrote(&sample, Lsn(written));
        }
        view.record_supersession(proof(2, switch));
        assert_eq!(view.superseded_by, superseded_by, "{what}");
    }
    // What was remembered before is judged as soon as enough is written; and a sample counts for more.
    let mut view = view(false);
    let sample = view.sample.unwrap();
    view.remember(proof(2, 250));
    view.failed(refused(), at(101));
    assert_eq!(view.superseded_by, None);
    view.wrote(&sample, Lsn(300));
    assert_eq!(view.superseded_by, Some(Timeline(2)));
    assert!(judge_primary(&view, at(102)).is_err());
    let again = ServerSample {
        at: at(103),
        position: Some(Lsn(240)),
        ..sample
    };
    view.record_sample(again);
    assert_eq!((view.superseded_by, view.written), (None, None));
    view.failed(refused(), at(104));
    view.wrote(&sample, Lsn(300));
    assert_eq!(view.written, None, "of a sample before");
}

#[test]
fn a_primary_that_is_silent_led_last_and_serves_nothing() {
    let long_after = at(100_000);
    for (in_recovery, superseded_by, led) in [
        (false, None, true),
        (true, None, false),
        (false, Some(Timeline(2)), false),
    ] {
        let silent = View {
            superseded_by,
            ..view(in_recovery)
        };
        assert!(!silent.leads(long_after));
        assert_eq!(silent.led_last(), led, "{in_recovery} {superseded_by:?}");
    }
    assert!(!View::default().led_last());
}

#[test]
fn a_primary_is_not_served_before_the_others_were_asked() {
    let starting = View {
        asked_peers: false,
        ..view(false)
    };
    let reason = judge_primary(&starting, at(101)).unwrap_err();
    assert!(reason.contains("not asked yet"), "{reason}");
    let standby = View {
        asked_archive: false,
        ..view(true)
    };
    assert_eq!(judge_replica(&standby, at(101)), Ok(()));
}

#[test]
fn a_superseded_primary_serves_nothing_and_neither_does_one_without_pgbouncer() {
    let superseded = View {
        superseded_by: Some(Timeline(2)),
        ..view(false)
    };
    assert!(
        judge_primary(&superseded, at(101))
            .unwrap_err()
            .contains("timeline 2")
    );
    for pgbouncer_at in [None, Some(at(80))] {
        let cut = View {
            pgbouncer_at,
            ..view(false)
        };
        assert!(
            judge_primary(&cut, at(101))
                .unwrap_err()
                .contains("PgBouncer")
        );
    }
}

#[test]
fn the_last_role_is_held_for_a_while_when_sampling_fails() {
    let failing = View {
        failing: Some((at(101), "no answer".into())),
        pgbouncer_at: Some(at(112)),
        ..view(false)
    };
    assert_eq!(judge_primary(&failing, at(114)), Ok(()));
    assert!(
        judge_primary(&failing, at(116))
            .unwrap_err()
            .contains("no answer")
    );
    // Without a failure an old sample means that sampling itself stands still.
    assert!(
        judge_primary(
            &View {
                failing: None,
                ..failing
            },
            at(114)
        )
        .is_err()
    );
}

#[test]
fn a_server_that_is_known_to_be_down_is_served_no_more_and_one_that_refuses_xdb_is() {
    let failure = |life| SampleFailure {
        life,
        reason: "seen".to_owned(),
    };
    let served = |failures: &[(i64, Life)], now| {
        let mut view = View {
            pgbouncer_at: Some(at(now)),
            ..view(false)
        };
        for (second, life) in failures {
            view.failed(failure(*life), at(*second));
        }
        judge_primary(&view, at(now)).is_ok()
    };
    for (failures, now, expected) in [
        (&[(101, Life::Unknown)][..], 115, true),
        (&[(101, Life::Unknown)], 116, false),
        (&[(101, Life::Down)], 101, false),
        // What was down may be something else when it is back: it must be sampled first.
        (&[(101, Life::Down), (102, Life::Unknown)], 103, false),
        (&[(101, Life::Down), (102, Life::Up)], 103, false),
        (&[(101, Life::Up), (400, Life::Up)], 401, true),
        (&[(101, Life::Up), (400, Life::Unknown)], 417, false),
    ] {
        assert_eq!(served(failures, now), expected, "{failures:?} at {now}");
    }
}

#[test]
fn a_server_that_comes_back_is_served_once_the_others_were_asked_about_it() {
    let returned = |life: Option<Life>, second| {
        let mut view = view(false);
        let before = view.current_run();
        if let Some(life) = life {
            let reason = "seen".to_owned();
            view.failed(SampleFailure { life, reason }, at(101));
            assert_eq!(view.current_run(), None);
        }
        view.record_sample(ServerSample {
            at: at(second),
            ..view.sample.unwrap()
        });
        let asked = (view.asked_peers, view.asked_archive);
        assert_eq!(view.current_run() == before, asked.0);
        let is_served = judge_primary(&view, at(second)).is_ok();
        assert_eq!(is_served, asked == (true, true));
        asked
    };
    for (life, second, asked) in [
        (None, 101, (true, true)),
        (None, 106, (false, true)),
        (Some(Life::Down), 102, (false, false)),
        (Some(Life::Unknown), 110, (true, true)),
        (Some(Life::Unknown), 117, (false, true)),
        (Some(Life::Up), 110, (true, true)),
    ] {
        assert_eq!(returned(life, second), asked, "{life:?} {second}");
    }
}

#[test]
fn a_role_that_pgbouncer_contradicts_is_not_held() {
    let mut refused = view(true);
    refused.failed(
        SampleFailure {
            life: Life::Up,
            reason: "too many clients".to_owned(),
        },
        at(101),
    );
    for (in_recovery, role) in [
        (None, Some(true)),
        (Some(true), Some(true)),
        (Some(false), None),
    ] {
        refused.saw_pgbouncer(PgBouncerState {
            at: at(101),
            condition: PgBouncerCondition::Serves,
            reason: None,
            in_recovery,
        });
        assert_eq!(refused.in_recovery(at(102)), role, "{in_recovery:?}");
    }
}

#[test]
fn a_pgbouncer_that_lives_is_served_and_only_silence_is_held() {
    use PgBouncerCondition::{Gone, Lives, Serves, Silent};
    for (condition, last_lived, now, expected) in [
        (Serves, 101, 101, true),
        (Lives, 101, 101, true),
        (Silent, 100, 115, true),
        (Silent, 100, 116, false),
        (Gone, 100, 101, false),
    ] {
        let mut view = view(false);
        view.record_sample(ServerSample {
            at: at(now),
            ..view.sample.unwrap()
        });
        (view.asked_peers, view.asked_archive) = (true, true);
        view.pgbouncer_at = Some(at(last_lived));
        view.saw_pgbouncer(PgBouncerState {
            at: at(now),
            condition,
            reason: Some("seen".to_owned()),
            in_recovery: None,
        });
        let judged = judge_primary(&view, at(now));
        assert_eq!(
            judged.is_ok(),
            expected,
            "{condition:?} at {now}: {judged:?}"
        );
    }
}

#[test]
fn a_server_that_refuses_a_new_daemon_keeps_the_role_of_a_moment_ago() {
    let sample = view(false).sample.unwrap();
    for (what, life, now, served) in [
        ("refuses", Life::Up, 150, true),
        ("silent for a moment", Life::Unknown, 110, true),
        ("silent", Life::Unknown, 116, false),
        ("down", Life::Down, 101, false),
    ] {
        let mut view = View {
            pgbouncer_at: Some(at(now)),
            asked_peers: true,
            asked_archive: true,
            ..View::default()
        };
        assert!(!view.recall(sample, None), "{what}: not tried yet");
        let reason = what.to_owned();
        view.failed(SampleFailure { life, reason }, at(now));
        assert!(view.recall(sample, None), "{what}");
        assert!(!view.recall(sample, None), "{what}");
        assert_eq!(judge_primary(&view, at(now)).is_ok(), served, "{what}");
        // A proof that was kept on this node's disk counts as before.
        view.remember(proof(2, 100));
        assert!(judge_primary(&view, at(now)).is_err(), "{what}");
    }
    let mut sampled = view(false);
    assert!(!sampled.recall(
        ServerSample {
            in_recovery: true,
            ..sample
        },
        None
    ));
}
