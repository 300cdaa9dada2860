//! Whose WAL a segment is, by its own first page.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// `XLogLongPageHeaderData`: the flags stand at 2, the system identifier at 24 (`access/xlog_internal.h`).
const HEADER: usize = 32;
const LONG_HEADER: u16 = 0x0002;

/// The system identifier of the cluster that wrote the segment at `path`; `None` when the file begins with no header.
pub(super) fn system_identifier(path: &Path) -> Option<u64> {
    let mut header = [0; HEADER];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    parse(&header)
}

/// Numbers stand in the byte order of the server, which runs on this machine.
fn parse(header: &[u8; HEADER]) -> Option<u64> {
    let flags = u16::from_ne_bytes(header[2..4].try_into().ok()?);
    let identifier = u64::from_ne_bytes(header[24..32].try_into().ok()?);
    (flags & LONG_HEADER != 0).then_some(identifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_header_names_its_cluster_and_a_short_one_does_not() {
        let mut header = [0; HEADER];
        header[24..32].copy_from_slice(&7_710_554_067_872_419_855_u64.to_ne_bytes());
        assert_eq!(parse(&header), None);
        header[2..4].copy_from_slice(&LONG_HEADER.to_ne_bytes());
        assert_eq!(parse(&header), Some(7_710_554_067_872_419_855));
        assert_eq!(system_identifier(Path::new("/dev/null")), None);
    }
}
