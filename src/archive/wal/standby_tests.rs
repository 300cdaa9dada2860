//! What a standby waits for, and what it is proven never to get.

use jiff::Timestamp;

use super::*;

fn acknowledged() -> Acknowledgement {
    let segments = ("000000030000000000000010", "000000030000000000000012");
    let who = ("anna", "the volume died");
    let at = Timestamp::UNIX_EPOCH;
    Acknowledgement::new("s3://b/a", segments, who, at, at)
}

#[test]
fn only_what_is_proven_to_come_no_more_is_let_go() {
    // Timeline 4 left 3 within segment 0x18, and 1 where segment 9 ends.
    let ancestry = Ancestry {
        timeline: Timeline(4),
        history: "1\t0/A000000\tr\n3\t0/180000A0\tr\n".parse().unwrap(),
    };
    let known = [acknowledged()];
    let judge = |name: &str, followed: bool, pruned: Option<&str>, is_replaced: bool| {
        let facts = Facts {
            name,
            size: SegmentSize::default(),
            ancestry: followed.then_some(&ancestry),
            pruned_before: pruned,
            acknowledgements: &known,
            is_replaced,
        };
        facts.judge()
    };
    let left = |timeline, at: Option<u64>| {
        Some(NeverComes::Left {
            timeline: Timeline(timeline),
            to: Timeline(4),
            at: at.map(Lsn),
        })
    };
    let (first, switch) = (Some(0xA00_0000), Some(0x1800_00A0));
    for (name, never) in [
        ("000000030000000000000017", None),
        ("000000030000000000000018", left(3, switch)),
        ("000000030000000000000019", left(3, switch)),
        // The switch lies exactly where segment 9 ends: that one is whole.
        ("000000010000000000000009", None),
        ("00000001000000000000000A", left(1, first)),
        ("000000020000000000000003", left(2, None)),
        ("000000040000000000000018", None),
        ("000000050000000000000020", None),
        ("000000030000000000000005.00000028.backup", left(3, switch)),
        ("000000040000000000000019.00000028.backup", None),
        ("000000030000000000000018.partial", None),
        ("00000003.history", None),
        ("00000002.history", left(2, None)),
    ] {
        assert_eq!(judge(name, true, None, false), never, "{name}");
        if name.len() == 24 {
            assert_eq!(
                judge(name, false, None, false),
                None,
                "{name} without a history"
            );
        }
    }
    let partial = "000000030000000000000018.partial";
    assert_eq!(judge(partial, true, None, true), left(3, switch));

    let before = "000000030000000000000010";
    for (name, pruned) in [
        ("00000003000000000000000F", true),
        ("00000003000000000000000F.00000028.backup", true),
        ("00000003000000000000000F.partial", true),
        ("000000020000000000000020", true),
        ("00000002.history", true),
        ("00000003.history", false),
        ("000000030000000000000013", false),
    ] {
        let never = judge(name, false, Some(before), false);
        assert_eq!(
            matches!(never, Some(NeverComes::Pruned { .. })),
            pruned,
            "{name}"
        );
    }
    for (name, lost) in [
        ("00000003000000000000000F", false),
        ("000000030000000000000010", true),
        ("000000030000000000000012", true),
        ("000000030000000000000012.00000028.backup", true),
        ("000000030000000000000013", false),
        ("000000040000000000000011", false),
        ("00000003.history", false),
    ] {
        let never = judge(name, false, None, false);
        assert_eq!(
            matches!(never, Some(NeverComes::Acknowledged { .. })),
            lost,
            "{name}"
        );
    }
}

#[test]
fn the_mark_tells_whether_the_primary_is_still_to_come() {
    let archived = "000000030000000000000012";
    let of = (7, "s3://b/a");
    let mark = HighWater::new(
        of,
        (Timeline(3), archived, Lsn(0)),
        "db1",
        Timestamp::UNIX_EPOCH,
    );
    for (name, passed) in [
        ("000000030000000000000011", true),
        ("000000030000000000000013", false),
        ("00000003.history", true),
        ("00000004.history", false),
    ] {
        let waits = waits_for(name, Some(&mark));
        assert_eq!(matches!(waits, Waits::Passed { .. }), passed, "{name}");
    }
    assert_eq!(waits_for(archived, None), Waits::Unknown);
}
