//! `xdb archive verify`: what the repository holds, and what its backups need and lack.

use std::path::Path;

use bytesize::ByteSize;

use super::exit::Exit;
use super::output::{say, table};
use crate::archive;
use crate::repository::catalog::Verified;

pub(super) fn exit(verified: &Verified) -> Exit {
    if verified.is_good() {
        Exit::Good
    } else {
        Exit::Bad
    }
}

pub(super) fn print_verified(data_directory: &Path, verified: &Verified) -> std::io::Result<()> {
    let rows = verified.wal.iter().map(|range| {
        let bytes = ByteSize(range.bytes).to_string();
        let (first, last) = (range.first.clone(), range.last.clone());
        vec![
            range.timeline.to_string(),
            first,
            last,
            range.segments.to_string(),
            bytes,
        ]
    });
    let header = ["TIMELINE", "FROM", "TO", "SEGMENTS", "STORED"];
    say(table(&header, &[0, 3, 4], rows).trim_fmt())?;
    print_wrong(data_directory, verified)?;
    for backup in &verified.unfinished {
        say(format_args!("unfinished: {backup} has no sentinel"))?;
    }
    let well = if verified.is_good() {
        "no unacknowledged gaps; "
    } else {
        ""
    };
    match (&verified.end_unverified, &verified.mark) {
        (Some(reason), _) => say(format_args!("{well}its end is unverified: {reason}")),
        (None, Some(mark)) => say(format_args!(
            "{well}the primary's high-water mark is {mark}"
        )),
        (None, None) => Ok(()),
    }
}

pub(super) fn print_wrong(data_directory: &Path, verified: &Verified) -> std::io::Result<()> {
    for gap in &verified.gaps {
        let known = gap.acknowledged.as_ref();
        let known = known.map_or_else(String::new, |known| format!("; {}", known.told()));
        let (named, cut_off) = (gap.named(), gap.cuts_off.join(", "));
        let end = if gap.at_end {
            ", the end of what was archived"
        } else {
            ""
        };
        say(format_args!(
            "MISSING: {named}{end}; it cuts off {cut_off}{known}"
        ))?;
        for cut in &gap.cut {
            say(format_args!(
                "HINT: {cut}, too few for a whole segment: delete that object, then `xdb archive fill` on a node whose pg_wal holds it"
            ))?;
        }
        for damaged in &gap.damaged {
            say(format_args!(
                "HINT: {damaged}: move that object out of the bucket, then run `xdb archive fill` on a node whose pg_wal holds it. If none does, run `xdb backup push` now"
            ))?;
        }
        let held = archive::held_here(data_directory, (&gap.first, &gap.last));
        if held > 0 {
            say(format_args!(
                "HINT: pg_wal of this node holds {held} of {}: `xdb archive fill` verifies and stores what is whole",
                gap.segments
            ))?;
        }
    }
    for problem in &verified.problems {
        say(format_args!("WRONG: {problem}"))?;
    }
    Ok(())
}
