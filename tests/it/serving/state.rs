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
    refused_after_a_restart(&lab, daemon);
    hung_at_the_start(&lab);
}

/// Files that hang when a daemon begins keep it neither from serving nor from ending.
fn hung_at_the_start(lab: &Lab) {
    const FILES: &str = "/var/lib/xdb/last-answer.json /var/lib/xdb/superseded-by.json /var/lib/xdb/forgotten-timelines.json";
    lab.ok(&format!(
        "rm -f {FILES} && mkfifo {FILES} && chown postgres {FILES}"
    ));
    let hangs = lab.sh_as_postgres(&format!(
        "for file in {FILES}; do timeout 1 cat $file; [ $? = 124 ] && echo hung; done"
    ));
    assert_eq!(hangs.stdout.trim(), "hung\nhung\nhung", "{hangs:?}");
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the primary is served", SOON, || {
        (ask(lab, "primary") == 200).then_some(())
    });
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}

/// A server that lives and refuses the login of a daemon that has just begun is served on.
fn refused_after_a_restart(lab: &Lab, daemon: Background<'_>) {
    let connect = |allowed: bool| {
        let sql = format!("ALTER DATABASE postgres ALLOW_CONNECTIONS {allowed}");
        lab.sh_as_postgres(&format!("psql -X -d template1 -c '{sql}'"))
            .succeeded(&sql);
    };
    connect(false);
    let said = lab.sh_as_postgres("psql -X -d postgres -c 'SELECT 1'");
    assert!(
        said.stderr.contains("not currently accepting connections"),
        "{said:?}"
    );
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
    let daemon = lab.xdb_in_background(&["daemon"]);
    let first = eventually("it answers", SOON, || {
        Some(ask(lab, "primary")).filter(|code| *code != 0)
    });
    assert_eq!(first, 200);
    // Longer than silence is held.
    assert_eq!(not_served(lab, "primary", 18), [""; 0]);
    eventually("the refused login is critical", SOON, || {
        alert(lab, "postgresql-up", "critical")
    });
    connect(true);
    eventually("it is over", SOON, || {
        let raised = alert(lab, "postgresql-up", "critical");
        raised.is_none().then_some(())
    });
    assert_eq!(not_served(lab, "primary", 2), [""; 0]);
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}
