//! `xdb dump push` and `xdb dump list`.

mod contents;
mod failures;
mod snapshots;

use std::time::Duration;

use serde_json::Value;

use crate::harness::Lab;

const SOON: Duration = Duration::from_secs(60);
const DUMPS: &str = "/srv/s3/pgdump-test/main";
const PG: &str = "/usr/lib/postgresql/17/bin";

fn push(lab: &Lab) -> Value {
    lab.xdb_json(&["dump", "push"])
}

fn listed(lab: &Lab) -> Vec<Value> {
    let list = lab.xdb_json(&["dump", "list"]);
    list.as_array().expect("an array").clone()
}

/// What is stored below the repository, seen from outside.
fn stored(lab: &Lab) -> String {
    lab.ok(&format!("! test -d {DUMPS} || find {DUMPS} -type f"))
}

/// Rows that do not compress, so that a dump takes more than one part.
fn fill(lab: &Lab, mebibytes: u32) {
    lab.ok(&format!(
        "head -c {mebibytes}M /dev/urandom >/tmp/random && chmod a+r /tmp/random"
    ));
    lab.sql("SELECT lo_import('/tmp/random')");
}
