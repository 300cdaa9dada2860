//! Whether what is stored can be unpacked, read by xdb itself: a program that failed at it calls a damaged object and a
//! lost S3 by similar names.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::{Backup, decompressed, tar_parts, unpacker};
use crate::repository::{Repository, segment_header};
use crate::storage::{Bucket, Object, StorageError};

/// Bytes that are written to disk at once.
const PIECE: usize = 256 << 10;

/// How far into an object the mark of its format may be: that of tar is the farthest.
const MARK_END: usize = 262;

/// What the tar parts of a chain of backups turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Parts {
    /// Each of them can be unpacked.
    Whole,
    /// The first that cannot be, and why.
    Corrupt(String),
    /// None of a backup's parts begins as its name says: xdb cannot read them.
    Encrypted,
}

/// Unpacks every tar part of `chain` and throws the content away.
///
/// # Errors
/// When the bucket cannot be read.
pub(crate) async fn check_parts(
    repository: &Repository,
    chain: &[&Backup],
) -> Result<Parts, StorageError> {
    let mut judged = Parts::Whole;
    for backup in chain {
        let mut read = Vec::new();
        for part in tar_parts(repository, &backup.name).await? {
            let name = part.key.rsplit('/').next().unwrap_or_default().to_owned();
            read.push((name, unpack(&repository.bucket, &part).await?));
        }
        match judge_backup(&backup.name, &read) {
            Parts::Whole => {}
            corrupt @ Parts::Corrupt(_) => return Ok(corrupt),
            Parts::Encrypted => judged = Parts::Encrypted,
        }
    }
    Ok(judged)
}

/// What one tar part turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Whole,
    /// It does not begin as its name says.
    Other,
    Corrupt(String),
}

/// By the objects themselves and not by settings, which may have changed, or be ignored by the program: where one part of
/// a backup is not encrypted, none is.
fn judge_backup(backup: &str, parts: &[(String, Part)]) -> Parts {
    if !parts.is_empty() && parts.iter().all(|(_, part)| *part == Part::Other) {
        return Parts::Encrypted;
    }
    let reason = |(name, part): &(String, Part)| match part {
        Part::Whole => None,
        Part::Other => Some((
            name.clone(),
            "it does not begin as its name says".to_owned(),
        )),
        Part::Corrupt(reason) => Some((name.clone(), reason.clone())),
    };
    parts
        .iter()
        .find_map(reason)
        .map_or(Parts::Whole, |(name, reason)| {
            let of = format!("the tar part {name} of {backup}");
            Parts::Corrupt(format!("{of} cannot be unpacked: {reason}"))
        })
}

async fn unpack(bucket: &Bucket, part: &Object) -> Result<Part, StorageError> {
    let read = |key: &str, mut stored: Arriving| {
        let mut head = Vec::new();
        let begun = (&mut stored).take(MARK_END as u64).read_to_end(&mut head);
        begun.map_err(|error| error.to_string())?;
        if begins_as_named(key, &head) == Some(false) {
            // Neither is what a program that encrypts would write.
            if head.iter().all(|byte| *byte == 0) {
                return Err("it is empty, or zeroes".to_owned());
            }
            return Ok(Part::Other);
        }
        read_through(key, Read::chain(head.as_slice(), stored)).map(|()| Part::Whole)
    };
    let read = streamed(bucket, &part.key, read).await?;
    Ok(read.unwrap_or_else(Part::Corrupt))
}

/// Whether the object `key`, which begins with `head`, has the format that its suffix names; `None` where that cannot be told.
///
/// Neither an encrypted object nor one whose begin is damaged has it.
pub(crate) fn begins_as_named(key: &str, head: &[u8]) -> Option<bool> {
    // Frames that readers skip, of both formats.
    let skippable =
        || head.len() >= 4 && head[0] & 0xF0 == 0x50 && head[1..4] == [0x2A, 0x4D, 0x18];
    match key.rsplit_once('.').map(|(_, suffix)| suffix) {
        Some("lz4") => Some(head.starts_with(&[0x04, 0x22, 0x4D, 0x18]) || skippable()),
        Some("zst") => Some(head.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) || skippable()),
        Some("tar") => {
            let header = head.get(257..MARK_END) == Some(b"ustar");
            // An archive without members is zeroes.
            Some(header || head.iter().all(|byte| *byte == 0))
        }
        _ => None,
    }
}

/// Unpacks the object `key` into the file at `path`, in bounded memory; returns the file's bytes, or why it cannot be unpacked.
///
/// # Errors
/// When the bucket cannot be read.
pub(crate) async fn unpack_into(
    bucket: &Bucket,
    key: &str,
    path: PathBuf,
) -> Result<Result<u64, String>, StorageError> {
    let write = move |key: &str, stored: Arriving| {
        let mut content = unpacker(key, stored)?;
        let write = |file| {
            let mut file = BufWriter::with_capacity(PIECE, file);
            let written = io::copy(&mut content, &mut file)?;
            file.flush()?;
            Ok(written)
        };
        // Only the owner of a cluster may read its files.
        let mut private = OpenOptions::new();
        private.write(true).create(true).truncate(true).mode(0o600);
        let written: io::Result<u64> = private.open(&path).and_then(write);
        written.map_err(|error| error.to_string())
    };
    streamed(bucket, key, write).await
}

/// Unpacks the object `key` into `consume`, without a file, and returns its result; or why it cannot be unpacked or read.
///
/// # Errors
/// When the bucket cannot be read.
pub(crate) async fn read_unpacked<T: Send + 'static>(
    bucket: &Bucket,
    key: &str,
    consume: impl FnOnce(&mut dyn Read) -> io::Result<T> + Send + 'static,
) -> Result<Result<T, String>, StorageError> {
    let read = move |key: &str, stored: Arriving| {
        let mut content = unpacker(key, stored)?;
        consume(&mut content).map_err(|error| error.to_string())
    };
    streamed(bucket, key, read).await
}

/// What `consume` makes of the object `key` while it arrives, on a thread of its own.
pub(super) async fn streamed<T: Send + 'static>(
    bucket: &Bucket,
    key: &str,
    consume: impl FnOnce(&str, Arriving) -> Result<T, String> + Send + 'static,
) -> Result<Result<T, String>, StorageError> {
    let mut body = bucket.read(key).await?;
    let (sender, receiver) = mpsc::channel(4);
    let key = key.to_owned();
    let unpacking = tokio::task::spawn_blocking(move || consume(&key, Arriving::of(receiver)));
    while let Some(bytes) = body.next().await? {
        // It has seen enough.
        if sender.send(bytes).await.is_err() {
            break;
        }
    }
    drop(sender);
    Ok(unpacking
        .await
        .unwrap_or_else(|_| Err("the decompressor panicked".to_owned())))
}

/// Whether the content of the object `key`, which holds the WAL file `name`, can be unpacked, and to the segment of that
/// name, of the cluster with this system identifier where that is known.
///
/// # Errors
/// Why it cannot.
pub(crate) fn judge_stored(
    key: &str,
    name: &str,
    stored: &[u8],
    cluster: Option<u64>,
) -> Result<(), String> {
    if is_foreign(key) {
        return Ok(());
    }
    let content = decompressed(key, stored)?;
    segment_header::judge_start(name, &content, content.len() as u64, cluster)
}

/// Whether xdb reads the compression of the object `key`.
pub(crate) fn is_read(key: &str) -> bool {
    !is_foreign(key)
}

/// Of a compression that xdb does not know nothing can be said.
fn is_foreign(key: &str) -> bool {
    [".lzma", ".br"].iter().any(|suffix| key.ends_with(suffix))
}

fn read_through(key: &str, stored: impl Read) -> Result<(), String> {
    if is_foreign(key) {
        return Ok(());
    }
    let mut content = unpacker(key, stored)?;
    // A frame may follow another.
    loop {
        match io::copy(&mut content, &mut io::sink()) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Bytes that another task receives, for a decoder that waits for them on a thread of its own.
pub(super) struct Arriving {
    receiver: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Arriving {
    fn of(receiver: mpsc::Receiver<Bytes>) -> Self {
        let current = Bytes::new();
        Self { receiver, current }
    }
}

impl Read for Arriving {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(bytes) => self.current = bytes,
                None => return Ok(0),
            }
        }
        (&mut self.current).reader().read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_byte_and_a_cut_are_found_and_a_whole_part_is_not() {
        let text: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        let info = lz4_flex::frame::FrameInfo::new().content_checksum(true);
        let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::new());
        encoder.write_all(&text).unwrap();
        let whole = encoder.finish().unwrap();
        let mut changed = whole.clone();
        changed[whole.len() / 2] ^= 1;
        let cut = &whole[..whole.len() / 2];
        let key = "part_001.tar.lz4";
        assert_eq!(read_through(key, whole.as_slice()), Ok(()));
        for (what, stored) in [("changed", changed.as_slice()), ("cut", cut)] {
            assert!(read_through(key, stored).is_err(), "{what}");
        }
        assert_eq!(read_through("part_001.tar.br", cut), Ok(()));
    }

    #[test]
    fn a_backup_is_encrypted_when_no_part_begins_as_it_is_named() {
        let lz4 = [0x04, 0x22, 0x4D, 0x18, 0x64];
        let mut tar = vec![b'x'; 257];
        tar.extend(b"ustar\0");
        for (key, head, expected) in [
            ("a/part_001.tar.lz4", &lz4[..], Some(true)),
            ("a/part_001.tar.lz4", b"\x85\x02", Some(false)),
            ("a/part_001.tar.lz4", b"", Some(false)),
            ("a/part_001.tar.zst", &[0x28, 0xB5, 0x2F, 0xFD], Some(true)),
            ("a/part_001.tar.zst", &lz4[..], Some(false)),
            ("a/part_001.tar", tar.as_slice(), Some(true)),
            ("a/part_001.tar", &[0; 512], Some(true)),
            ("a/part_001.tar", b"\x85\x02", Some(false)),
            ("a/part_001.tar.br", &lz4[..], None),
            ("000000010000000000000003", &lz4[..], None),
        ] {
            assert_eq!(begins_as_named(key, head), expected, "{key} {head:?}");
        }
        let parts = |parts: &[Part]| {
            let named = parts
                .iter()
                .cloned()
                .map(|part| ("part_001".to_owned(), part));
            judge_backup("base_1", &named.collect::<Vec<_>>())
        };
        let cut = || Part::Corrupt("cut".to_owned());
        assert_eq!(parts(&[]), Parts::Whole);
        assert_eq!(parts(&[Part::Whole, Part::Whole]), Parts::Whole);
        assert_eq!(parts(&[Part::Other, Part::Other]), Parts::Encrypted);
        for damaged in [
            [Part::Whole, Part::Other],
            [Part::Other, cut()],
            [cut(), Part::Whole],
        ] {
            assert!(matches!(parts(&damaged), Parts::Corrupt(_)), "{damaged:?}");
        }
    }

    #[test]
    fn a_segment_that_lost_its_end_is_none() {
        let name = "000000010000000000000003";
        let judge = |key: &str, name: &str, stored: &[u8]| judge_stored(key, name, stored, None);
        let zeros = vec![0; 1 << 20];
        for (what, key, content, reason) in [
            ("cut", name, &zeros[1..], "no segment"),
            ("zeros", name, &zeros[..], "header"),
            ("not compressed", "x.lz4", &zeros[..], ""),
        ] {
            let judged = judge(key, name, content).unwrap_err();
            assert!(judged.contains(reason), "{what}: {judged}");
        }
        assert_eq!(judge("00000002.history", "00000002.history", b"1"), Ok(()));
        assert!(is_read("x.zst") && !is_read("x.br"));
    }
}
