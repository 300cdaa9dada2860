//! S3 that fails in the middle of an upload.

use super::*;

const PORT: u16 = 7301;
/// Of 8 MiB each: what `two_databases` makes, and its table of contents.
const PARTS: u32 = 10;

/// Makes the second database so large that each of its parts is a tenth.
fn fill_to_ten_parts(lab: &Lab) {
    fill(lab, 8 * (PARTS - 5) - 1);
}

/// Ends a fault of [`Lab::s3_between`].
fn mend(lab: &Lab) {
    lab.upstream("127.0.0.1:7070");
    lab.ok(&format!(
        "while pkill -f '[s]3_between.pl {PORT} '; do sleep 0.05; done; rm -f /tmp/s3_cut"
    ));
}

/// S3 goes away when a part of the second database arrives, once for each of its ten parts.
pub(super) fn each_tenth_of_an_upload_may_be_the_last(lab: &Lab) {
    fill_to_ten_parts(lab);
    for part in 1..=PARTS {
        lab.s3_between(PORT, &format!("cut-at-part-{part}-of-postgres.dump"));
        let push = lab.xdb(&["dump", "push"]);
        assert_eq!(
            lab.sh("test -e /tmp/s3_cut").code,
            0,
            "part {part} was not sent"
        );
        push.failed(4, "S3 does not answer");
        mend(lab);
        let complete = listed(lab)
            .iter()
            .any(|set| set["status"] != json!("incomplete"));
        assert!(!complete, "after part {part}");
    }
}

/// One part that S3 refuses, though it took others before.
pub(super) fn a_refused_part_fails_the_set(lab: &Lab) {
    lab.s3_between(PORT, "refuse-part-4-of-postgres.dump");
    let push = lab.xdb(&["dump", "push"]);
    push.failed(4, "access denied");
    assert!(push.stderr.contains("upload a part of"), "{push:?}");
    mend(lab);
    nothing_is_left(lab);
}

/// Each request is refused with 503 when it comes for the first time; the set is whole all the same.
pub(super) fn a_storm_of_503_is_weathered(lab: &Lab) -> Value {
    lab.s3_between(PORT, "storm");
    let set = push(lab);
    let refused: u32 = lab.ok("ls /tmp/s3_storm | wc -l").parse().unwrap();
    assert!(refused > PARTS, "{refused} requests were refused");
    mend(lab);
    set
}
