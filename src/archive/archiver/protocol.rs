//! WAL-G's daemon protocol, as bytes: a frame is its type, its whole length in two bytes (big-endian), and a body.

use crate::model::ArchiveFile;

/// Type and length.
pub(super) const HEADER: usize = 3;
/// No request that is served has a longer body; file names are far shorter.
const LONGEST_BODY: usize = 255;

pub(super) const CHECK: u8 = b'C';
pub(super) const PUSH: u8 = b'F';
/// xdb's own, of no other daemon or client.
pub(super) const PUSH_FILE: u8 = b'X';
pub(super) const OK: u8 = b'O';
pub(super) const ERROR: u8 = b'E';

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    Check,
    /// The bare name of a file in `pg_wal`.
    Push(String),
    /// The same, where the name is that of the file with this device and inode.
    PushFile(String, (u64, u64)),
}

impl Request {
    /// `None` for what is not served: `f` (fetching) above all, which writes below the live data directory.
    pub(super) fn parse(kind: u8, body: &[u8]) -> Option<Self> {
        match kind {
            CHECK => Some(Self::Check),
            PUSH => {
                let name = std::str::from_utf8(body).ok()?;
                // No path: only a name that PostgreSQL archives.
                ArchiveFile::of(name).map(|_| Self::Push(name.to_owned()))
            }
            PUSH_FILE => {
                let mut words = std::str::from_utf8(body).ok()?.splitn(3, ' ');
                let file = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let name = words.next()?;
                ArchiveFile::of(name).map(|_| Self::PushFile(name.to_owned(), file))
            }
            _ => None,
        }
    }
}

/// The length of the body that follows `header`; `None` when it is wrong or longer than any that is served.
pub(super) fn body_length(header: [u8; HEADER]) -> Option<usize> {
    let body = usize::from(u16::from_be_bytes([header[1], header[2]])).checked_sub(HEADER)?;
    (body <= LONGEST_BODY).then_some(body)
}

/// The body of [`PUSH_FILE`]; `file` is its device and inode.
pub(super) fn push_file(name: &str, file: (u64, u64)) -> String {
    format!("{} {} {name}", file.0, file.1)
}

/// A frame of `kind`; a body is short.
pub(super) fn frame(kind: u8, body: &str) -> Vec<u8> {
    let length = u16::try_from(HEADER + body.len()).unwrap_or(u16::MAX);
    let mut frame = vec![kind];
    frame.extend(length.to_be_bytes());
    frame.extend(body.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_framed_is_read_again() {
        let name = "000000010000000000000003";
        let push = frame(PUSH, name);
        assert_eq!(push[..3], [b'F', 0, 27]);
        assert_eq!(body_length([push[0], push[1], push[2]]), Some(24));
        assert_eq!(
            Request::parse(push[0], &push[3..]),
            Some(Request::Push(name.to_owned()))
        );
        let body = push_file(name, (u64::MAX, 7));
        assert_eq!(
            Request::parse(PUSH_FILE, body.as_bytes()),
            Some(Request::PushFile(name.to_owned(), (u64::MAX, 7)))
        );
        assert_eq!(frame(CHECK, ""), [b'C', 0, 3]);
        assert_eq!(Request::parse(CHECK, b""), Some(Request::Check));
    }

    #[test]
    fn what_is_not_served_is_refused() {
        for (kind, body) in [
            (b'f', &b"\x02\x00\x01a\x00\x01b"[..]),
            (PUSH, b""),
            (PUSH, b"../../etc/passwd"),
            (PUSH, b"pg_wal/000000010000000000000003"),
            (PUSH, b"\xff"),
            (PUSH_FILE, b"000000010000000000000003"),
            (PUSH_FILE, b"1 2"),
            (PUSH_FILE, b"1 2 ../../etc/passwd"),
            (b'O', b""),
        ] {
            assert_eq!(Request::parse(kind, body), None, "{kind} {body:?}");
        }
        for header in [[PUSH, 0, 0], [PUSH, 0, 2], [PUSH, 0xFF, 0xFF]] {
            assert_eq!(body_length(header), None, "{header:?}");
        }
    }
}
