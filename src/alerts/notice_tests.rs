//! The events for consumers, by tables and by random histories.

use proptest::prelude::*;

use super::*;
use crate::model::Ended;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_778_666_069 + second).unwrap()
}

fn key() -> AlertKey {
    AlertKey::parse("disk/db1/").unwrap()
}

fn state(severity: Severity, notice: Notice) -> AlertState {
    AlertState {
        severity,
        since: at(0),
        raised_at: Some(at(0)),
        reason: "is full".to_owned(),
        value: None,
        threshold: None,
        runbook: None,
        notice,
    }
}

fn silence(id: &str, severity: Severity, from: i64, until: i64) -> Silence {
    Silence {
        v: Silence::VERSION,
        id: id.to_owned(),
        of: crate::model::Silenced::Silence {
            pattern: "disk/db1".to_owned(),
        },
        severity,
        author: "eve".to_owned(),
        comment: String::new(),
        created_at: at(from),
        expires_at: at(until),
        ended: None,
    }
}

fn acknowledgement(severity: Severity) -> Silence {
    Silence {
        of: crate::model::Silenced::Acknowledgement {
            alert: key().to_string(),
            since: at(0),
        },
        ..silence("ack", severity, 0, 1_000_000)
    }
}

const RULES: &[Inhibition] = &[];

/// One alert through time: its events, as "second kind".
struct Story {
    notice: Notice,
    silences: Vec<Silence>,
    told: Vec<String>,
}

impl Story {
    fn new(silences: &[Silence]) -> Self {
        Self {
            notice: Notice::default(),
            silences: silences.to_vec(),
            told: Vec::new(),
        }
    }

    fn stands(&mut self, second: i64, severity: Severity) {
        let situation = Situation {
            silences: &self.silences,
            inhibitions: RULES,
            standing: &[(key(), true)],
            reminders: Reminders {
                critical: Duration::from_secs(100),
                warning: Duration::ZERO,
            },
            now: at(second),
        };
        let before = state(severity, self.notice.clone());
        let (kind, notice) = judge_notice(&key(), &before, &situation);
        self.notice = notice;
        self.told
            .extend(kind.map(|kind| format!("{second} {}", kind.word())));
    }
}

#[test]
fn each_story_is_told_so() {
    use Severity::{Critical, Unknown, Warning};
    for (about, silences, stands, expected) in [
        (
            "reminded in its interval, and not before",
            vec![],
            &[
                (0, Critical),
                (99, Critical),
                (100, Critical),
                (199, Critical),
                (200, Critical),
            ][..],
            &["0 raised", "100 reminded", "200 reminded"][..],
        ),
        (
            "an interval of zero is never",
            vec![],
            &[(0, Warning), (1_000_000, Warning)],
            &["0 raised"],
        ),
        (
            "a change makes an event and starts the interval again",
            vec![],
            &[
                (0, Warning),
                (60, Critical),
                (150, Critical),
                (160, Critical),
                (170, Warning),
            ],
            &["0 raised", "60 escalated", "160 reminded", "170 lowered"],
        ),
        (
            "a clock that was set back by an hour ends no reminders",
            vec![],
            &[(0, Critical), (-3600, Critical), (-3500, Critical)],
            &["0 raised", "-3500 reminded"],
        ),
        (
            "silenced from the start, raised at once when that expires",
            vec![silence("a", Warning, 0, 50)],
            &[(0, Warning), (49, Warning), (50, Warning), (51, Warning)],
            &["50 raised"],
        ),
        (
            "silenced while it stands",
            vec![silence("a", Critical, 0, 300)],
            &[
                (0, Critical),
                (250, Critical),
                (300, Critical),
                (400, Critical),
            ],
            &["300 raised", "400 reminded"],
        ),
        (
            "a silence never hides a new severity",
            vec![silence("a", Warning, 0, 1000)],
            &[(0, Warning), (10, Critical), (20, Critical), (30, Warning)],
            &["10 raised", "30 silenced"],
        ),
        (
            "what could not be checked turns out to be bad",
            vec![silence("a", Unknown, 0, 1000)],
            &[(0, Unknown), (10, Warning)],
            &["10 raised"],
        ),
    ] {
        let mut story = Story::new(&silences);
        for (second, severity) in stands {
            story.stands(*second, *severity);
        }
        assert_eq!(story.told, expected, "{about}");
    }
}

#[test]
fn a_silence_that_is_lifted_or_that_begins_late_is_told() {
    let mut story = Story::new(&[]);
    story.stands(0, Severity::Critical);
    story.silences = vec![silence("a", Severity::Critical, 5, 1000)];
    story.stands(5, Severity::Critical);
    story.stands(500, Severity::Critical);
    assert_eq!(story.notice.marks.silenced.as_ref().unwrap().id, "a");
    story.silences[0].ended = Some(Ended {
        at: at(600),
        by: "adam".to_owned(),
    });
    story.stands(600, Severity::Critical);
    assert_eq!(story.told, ["0 raised", "5 silenced", "600 raised"]);
    assert!(story.notice.marks.is_empty());
}

#[test]
fn an_acknowledged_alert_is_told_once_and_reminded_no_more_until_it_worsens() {
    use Severity::{Critical, Warning};
    let mut story = Story::new(&[]);
    story.stands(0, Critical);
    story.silences = vec![acknowledgement(Critical)];
    for (second, severity) in [
        (2, Critical),
        (4, Critical),
        (150, Critical),
        (160, Warning),
    ] {
        story.stands(second, severity);
    }
    assert_eq!(story.told, ["0 raised", "2 acknowledged", "160 lowered"]);

    let mut story = Story::new(&[]);
    story.stands(0, Warning);
    story.silences = vec![acknowledgement(Warning)];
    for (second, severity) in [(2, Warning), (10, Critical), (110, Critical)] {
        story.stands(second, severity);
    }
    let expected = ["0 raised", "2 acknowledged", "10 escalated", "110 reminded"];
    assert_eq!(story.told, expected);
}

#[test]
fn a_silence_that_is_known_by_its_alert_alone_hides_it_until_its_end() {
    let mut story = Story::new(&[silence("a", Severity::Warning, 0, 1000)]);
    story.stands(0, Severity::Warning);
    story.silences.clear();
    story.stands(999, Severity::Warning);
    assert_eq!(story.told, [""; 0]);
    story.stands(1000, Severity::Warning);
    assert_eq!(story.told, ["1000 raised"]);

    // Neither does it hide a worse severity, whether or not the alert was told before.
    for told_before in [false, true] {
        let all = [silence("a", Severity::Warning, 0, 1000)];
        let mut story = Story::new(if told_before { &[] } else { &all });
        story.stands(0, Severity::Warning);
        story.silences = all.to_vec();
        story.stands(1, Severity::Warning);
        story.silences.clear();
        story.stands(2, Severity::Warning);
        story.told.clear();
        story.stands(3, Severity::Critical);
        assert_eq!(story.told, ["3 raised"], "{told_before}");
    }
}

#[test]
fn what_follows_from_a_stopped_server_is_hidden_and_only_that() {
    use Severity::{Critical, Unknown, Warning};
    let rules = [
        Inhibition {
            cause: "postgresql-up",
            effect: "locks".to_owned(),
            covers: Covers::Unknown,
        },
        Inhibition {
            cause: "postgresql-up",
            effect: "pgbouncer-up".to_owned(),
            covers: Covers::AllBut("PgBouncer is down"),
        },
    ];
    let cause = |key: &str, raised| (AlertKey::parse(key).unwrap(), raised);
    let db1_down = [cause("postgresql-up/db1/", true)];
    for (about, alert, severity, reason, standing, hidden) in [
        (
            "cannot be checked",
            "locks/db1/",
            Unknown,
            "refused",
            &db1_down[..],
            true,
        ),
        (
            "was bad already",
            "locks/db1/",
            Warning,
            "locked",
            &db1_down,
            false,
        ),
        (
            "another node",
            "locks/db2/",
            Unknown,
            "refused",
            &db1_down,
            false,
        ),
        (
            "another check",
            "wal-volume/db1/",
            Unknown,
            "?",
            &db1_down,
            false,
        ),
        (
            "no login works",
            "pgbouncer-up/db1/",
            Critical,
            "no login",
            &db1_down,
            true,
        ),
        (
            "its own fault",
            "pgbouncer-up/db1/",
            Critical,
            "PgBouncer is down: x",
            &db1_down,
            false,
        ),
        ("no cause", "locks/db1/", Unknown, "refused", &[], false),
        (
            "the cause is pending",
            "locks/db1/",
            Unknown,
            "refused",
            &[cause("postgresql-up/db1/", false)],
            true,
        ),
    ] {
        let key = AlertKey::parse(alert).unwrap();
        let mut state = state(severity, Notice::default());
        state.reason = reason.to_owned();
        let mut situation = Situation {
            silences: &[],
            inhibitions: &rules,
            standing,
            reminders: Reminders::default(),
            now: at(0),
        };
        let (kind, notice) = judge_notice(&key, &state, &situation);
        assert_eq!(kind.is_none(), hidden, "{about}");
        assert_eq!(notice.marks.inhibited_by.is_some(), hidden, "{about}");
        // The cause is over: a raised one has an aftermath, in which what followed from it may end.
        if hidden {
            state.notice = notice;
            situation.standing = &[];
            let raised = standing.iter().any(|(_, raised)| *raised);
            for (second, silent) in [(30, raised), (61, false)] {
                situation.now = at(second);
                let (kind, _) = judge_notice(&key, &state, &situation);
                assert_eq!(kind.is_none(), silent, "{about} {second}");
            }
        }
    }
}

/// What consumers believe: the severity that stands, unless it is hidden.
fn believe(believed: &mut Option<(Severity, bool)>, kind: EventKind, severity: Severity) {
    let before = *believed;
    match kind {
        EventKind::Raised => {
            assert!(before.is_none_or(|(_, quiet)| quiet), "raised twice");
            *believed = Some((severity, false));
        }
        EventKind::Escalated => {
            assert!(before.is_some_and(|(known, quiet)| !quiet && known < severity));
            *believed = Some((severity, false));
        }
        EventKind::Lowered => {
            assert!(before.is_some_and(|(known, quiet)| !quiet && known > severity));
            *believed = Some((severity, false));
        }
        EventKind::Silenced => {
            assert!(before.is_some_and(|(_, quiet)| !quiet), "silenced twice");
            *believed = before.map(|(known, _)| (known, true));
        }
        EventKind::Reminded | EventKind::Acknowledged => {
            assert_eq!(before, Some((severity, false)), "{kind:?}");
        }
        EventKind::Resolved | EventKind::Test => unreachable!("never told of what stands"),
    }
}

fn severity() -> impl Strategy<Value = Severity> {
    prop_oneof![
        Just(Severity::Unknown),
        Just(Severity::Warning),
        Just(Severity::Critical)
    ]
}

proptest! {
    /// Whatever people and clocks do: no event is lost, and none comes twice.
    #[test]
    fn consumers_always_know_what_stands_and_is_not_hidden(
        silences in proptest::collection::vec((severity(), 0_i64..500, 1_i64..300, any::<bool>()), 0..4),
        steps in proptest::collection::vec((-100_i64..200, severity()), 1..40),
    ) {
        let silences: Vec<Silence> = silences
            .into_iter()
            .enumerate()
            .map(|(id, (severity, from, secs, acknowledges))| {
                let silence = silence(&id.to_string(), severity, from, from + secs);
                if acknowledges {
                    Silence { of: acknowledgement(severity).of, ..silence }
                } else {
                    silence
                }
            })
            .collect();
        let mut story = Story::new(&[]);
        let (mut second, mut believed) = (0, None);
        for (passed, severity) in steps {
            second += passed;
            // A person can make one only once its time has come.
            story.silences = silences.iter().filter(|one| one.created_at <= at(second)).cloned().collect();
            let before = story.told.len();
            story.stands(second, severity);
            for told in &story.told[before..] {
                let word = told.split(' ').nth(1).unwrap();
                let kind: EventKind = serde_json::from_value(word.into()).unwrap();
                believe(&mut believed, kind, severity);
            }
            prop_assert!(story.told.len() <= before + 1);
            let hides = |one: &Silence| one.is_live(at(second)) && one.hides(&key(), severity);
            if story.silences.iter().any(hides) {
                prop_assert!(believed.is_none_or(|(_, quiet)| quiet), "a silence is kept");
            } else if story.notice.marks.silenced.is_none() {
                prop_assert_eq!(believed, Some((severity, false)));
            }
        }
    }
}
