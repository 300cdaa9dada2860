//! Damaged objects, as `wal-fetch` meets them on a server in recovery and on a standby.

use super::{DB1, WAL, filled, wait_archived};
use crate::harness::{Lab, Program};

#[test]
fn a_bad_segment_is_never_handed_to_postgresql() {
    let lab = Lab::start(Program::Walrus);
    lab.config("[archive]\nfetch_timeout = \"10s\"");
    lab.sql("CREATE TABLE kept (id int)");
    let (first, second) = (filled(&lab), filled(&lab));
    wait_archived(&lab, &second);
    let repack = |change: &str| {
        lab.ok(&format!(
            "cd /tmp && lz4 -dcq {WAL}/{second}.lz4 >whole && cp whole bad && {change} && cp {WAL}/{second}.lz4 saved && lz4 -fcq bad >{WAL}/{second}.lz4 && ! cmp -s bad whole"
        ));
    };
    for (what, change, words) in [
        ("cut", "truncate -s -8 bad", "which is no segment"),
        (
            "cut to half",
            "truncate -s 8M bad",
            "its header says 16777216",
        ),
        (
            "another segment's",
            &*format!("lz4 -dcq {WAL}/{first}.lz4 >bad"),
            "its name stands for",
        ),
        (
            "another cluster's",
            "printf abcd | dd of=bad bs=1 seek=24 conv=notrunc status=none",
            "of another cluster",
        ),
        (
            "of a later timeline",
            "printf '\\7' | dd of=bad bs=1 seek=4 conv=notrunc status=none",
            "WAL of timeline 7",
        ),
        (
            "zeros",
            "truncate -s 0 bad && truncate -s 16M bad",
            "header of a segment",
        ),
    ] {
        repack(change);
        for (flag, code) in [("", 126), ("--standby", 1)] {
            let fetched = lab.sh_as_postgres(&format!(
                "cd {DB1} && xdb wal-fetch {flag} {second} /tmp/fetched"
            ));
            assert_eq!(fetched.code, code, "{what}: {fetched:?}");
            assert!(fetched.stderr.contains(words), "{what}: {fetched:?}");
            if flag.is_empty() {
                assert!(
                    fetched.stderr.contains("wal-fetch: damaged"),
                    "{what}: {fetched:?}"
                );
            }
            assert_eq!(lab.sh("test -e /tmp/fetched").code, 1, "{what}");
        }
        lab.ok(&format!("cp /tmp/saved {WAL}/{second}.lz4"));
    }
    let fetched = lab.sh_as_postgres(&format!("cd {DB1} && xdb wal-fetch {second} /tmp/fetched"));
    assert_eq!(fetched.code, 0, "{fetched:?}");
}
