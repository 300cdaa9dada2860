//! Clients that only connect, that send slowly, that keep a connection, and that ask by another method.

use super::*;

/// Holds `count` connections that send `bytes` and nothing more, and says so in /tmp/held.
fn hold<'a>(lab: &'a Lab, count: u32, bytes: &str) -> Background<'a> {
    lab.ok("rm -f /tmp/held");
    let script = format!(
        "ulimit -n 4096
         for i in $(seq {count}); do
             exec {{fd}}<>/dev/tcp/127.0.0.1/8009 && printf '{bytes}' >&$fd || break
         done
         echo $i >/tmp/held; sleep 60"
    );
    let client = lab.in_background(&["bash", "-c", &script]);
    eventually("all clients are connected", SOON, || {
        (lab.sh("cat /tmp/held").stdout.trim() == count.to_string()).then_some(())
    });
    client
}

fn open_files(lab: &Lab) -> u32 {
    let script = "ls /proc/$(pgrep -xf 'xdb daemon' | tail -n 1)/fd | wc -l";
    lab.ok(script).trim().parse().unwrap()
}

#[test]
fn a_client_that_only_connects_costs_nothing() {
    let lab = lab();
    // What systemd gives a service whose unit says nothing; the hard limit likewise, so that it cannot be raised.
    let limited = "ulimit -n 1024; exec xdb daemon";
    let daemon = lab.in_background(&["bash", "-c", limited]);
    serves(&lab, "primary");
    for bytes in ["", "GET /primary HTTP/1.1\\r\\nhost:"] {
        let client = hold(&lab, 1100, bytes);
        assert_eq!(not_served(&lab, "primary", 8), [""; 0], "{bytes:?}");
        assert!(open_files(&lab) < 600, "{}", open_files(&lab));
        // Each connection ends by itself, at the latest.
        eventually("the idle connections are closed", SOON, || {
            (open_files(&lab) < 60).then_some(())
        });
        assert!(client.is_running());
        client.signal("KILL");
    }

    let curl = |arguments: &str| {
        let url = "http://127.0.0.1:8009";
        lab.ok(&format!(
            "curl -s -m 5 -o /dev/null -w '%{{http_code}}' {arguments} | sed 's,URL,{url},'"
        )
        .replace("URL", url))
    };
    for (arguments, code) in [
        ("-X OPTIONS URL/primary", "200"),
        ("-X OPTIONS URL/replica", "503"),
        ("-0 -X OPTIONS URL/primary", "200"),
        ("-I URL/primary", "200"),
        ("-I URL/replica", "503"),
        ("-X POST URL/primary", "405"),
        ("-X OPTIONS URL/healthz", "200"),
    ] {
        assert_eq!(curl(arguments), code, "{arguments}");
    }
    daemon.signal("TERM");
    assert_eq!(daemon.wait(SOON).code, 143);
}
