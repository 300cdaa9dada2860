//! A state directory that hangs.

use super::*;

const ANSWER: &str = "/var/lib/xdb/last-answer.json";

fn is_kept(lab: &Lab) -> bool {
    lab.sh(&format!("test -f {ANSWER} && test -s {ANSWER}"))
        .code
        == 0
}

#[test]
fn a_state_file_that_hangs_takes_no_healthy_primary_away() {
    let lab = lab();
    let daemon = start(&lab);
    eventually("the last answer is kept", SOON, || {
        is_kept(&lab).then_some(())
    });

    // A write to a FIFO that nothing reads hangs, as on a volume that has stalled.
    lab.ok(&format!(
        "rm {ANSWER} && mkfifo {ANSWER} && chown postgres {ANSWER}"
    ));
    // The answer is kept each five seconds, and a sample is as long fresh.
    assert_eq!(not_served(&lab, "primary", 15), [""; 0]);
    // Held open while it goes: a second write would wait for a reader of a FIFO that nothing can open any more.
    let hung = lab.sh(&format!(
        "timeout 3 cat {ANSWER}; code=$?; exec 3<>{ANSWER}; rm {ANSWER}; exit $code"
    ));
    assert_eq!(hung.code, 0, "nothing waited for a reader: {hung:?}");

    eventually("the last answer is kept again", SOON, || {
        is_kept(&lab).then_some(())
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}
