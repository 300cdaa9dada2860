//! Whose WAL a segment is, by its own first page.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::model::Lsn;

/// `XLogLongPageHeaderData`: the flags stand at 2, the address at 8, the system identifier at 24 (`access/xlog_internal.h`).
pub(crate) const HEADER: usize = 32;
const LONG_HEADER: u16 = 0x0002;

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub system_identifier: u64,
    /// Where the segment begins.
    pub address: Lsn,
}

/// The system identifier of the cluster that wrote the segment at `path`; `None` when the file begins with no header.
pub(crate) fn system_identifier(path: &Path) -> Option<u64> {
    read(path).map(|header| header.system_identifier)
}

/// The header of the segment at `path`; `None` when the file begins with none.
pub(crate) fn read(path: &Path) -> Option<Header> {
    let mut header = [0; HEADER];
    File::open(path).ok()?.read_exact(&mut header).ok()?;
    parse(&header)
}

/// Numbers stand in the byte order of the server, which runs on this machine.
pub(crate) fn parse(header: &[u8]) -> Option<Header> {
    let flags = u16::from_ne_bytes(header.get(2..4)?.try_into().ok()?);
    let long = |at: usize| Some(u64::from_ne_bytes(header.get(at..at + 8)?.try_into().ok()?));
    let parsed = Header {
        system_identifier: long(24)?,
        address: Lsn(long(8)?),
    };
    (flags & LONG_HEADER != 0).then_some(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_header_names_its_cluster_and_a_short_one_does_not() {
        let mut header = [0; HEADER];
        header[8..16].copy_from_slice(&0x0500_0000_u64.to_ne_bytes());
        header[24..32].copy_from_slice(&7_710_554_067_872_419_855_u64.to_ne_bytes());
        assert_eq!(parse(&header), None);
        header[2..4].copy_from_slice(&LONG_HEADER.to_ne_bytes());
        let expected = Header {
            system_identifier: 7_710_554_067_872_419_855,
            address: Lsn(0x0500_0000),
        };
        assert_eq!(parse(&header), Some(expected));
        assert_eq!(parse(&header[..20]), None);
        assert_eq!(system_identifier(Path::new("/dev/null")), None);
    }
}
