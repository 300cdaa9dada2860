//! Two daemons on one node.

use super::{SOON, backed_up};
use crate::harness::{Lab, Program, eventually};

#[test]
fn a_second_daemon_is_refused_wherever_it_would_serve_and_the_first_goes_on() {
    let lab = Lab::setup(Program::Walrus).with_daemon().start();
    let lab = backed_up(lab, "");
    let healthy = || lab.sh("curl -sf -m 5 http://127.0.0.1:8009/healthz").code == 0;
    let daemon = lab.xdb_in_background(&["daemon"]);
    eventually("the first serves", SOON, || healthy().then_some(()));
    let writer = lab.writer();
    lab.end_segments(&writer, 2);
    for listen in ["0.0.0.0:8009", "127.0.0.1:8010"] {
        let second = lab.sh_as_postgres(&format!("XDB_HTTP_LISTEN={listen} timeout 30 xdb daemon"));
        second.failed(3, "another daemon runs on this node");
    }
    assert!(daemon.is_running() && healthy());
    lab.end_segments(&writer, 2);

    // A killed one leaves no lock that would keep the next out.
    daemon.signal("KILL");
    assert_eq!(daemon.wait(SOON).code, 137);
    let next = lab.xdb_in_background(&["daemon"]);
    eventually("the next serves", SOON, || healthy().then_some(()));
    next.signal("TERM");
    assert_eq!(next.wait(SOON).code, 143);
    lab.judge_archive(writer);
}
