//! Whether what is stored can be unpacked, read by xdb itself: a program that failed at it calls a damaged object and a
//! lost S3 by similar names.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::{Backup, decompressed, tar_parts, unpacker};
use crate::archive::segment_header;
use crate::storage::{Bucket, Object, Repository, StorageError};

/// Bytes that are written to disk at once.
const PIECE: usize = 256 << 10;

/// Unpacks every tar part of `chain` and throws the content away; tells the first that cannot be unpacked, and why.
///
/// # Errors
/// When the bucket cannot be read.
pub async fn find_corrupt_part(
    bucket: &Bucket,
    repository: &Repository,
    chain: &[&Backup],
) -> Result<Option<String>, StorageError> {
    for backup in chain {
        for part in tar_parts(bucket, repository, &backup.name).await? {
            let name = part.key.rsplit('/').next().unwrap_or_default();
            if let Err(reason) = unpack(bucket, &part).await? {
                let backup = &backup.name;
                return Ok(Some(format!(
                    "the tar part {name} of {backup} cannot be unpacked: {reason}"
                )));
            }
        }
    }
    Ok(None)
}

async fn unpack(bucket: &Bucket, part: &Object) -> Result<Result<(), String>, StorageError> {
    streamed(bucket, &part.key, read_through).await
}

/// Unpacks the object `key` into the file at `path`, in bounded memory; returns the file's bytes, or why it cannot be unpacked.
///
/// # Errors
/// When the bucket cannot be read.
pub async fn unpack_into(
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
        // A cluster's own files are nobody else's to read.
        let mut private = OpenOptions::new();
        private.write(true).create(true).truncate(true).mode(0o600);
        let written: io::Result<u64> = private.open(&path).and_then(write);
        written.map_err(|error| error.to_string())
    };
    streamed(bucket, key, write).await
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
pub fn judge_stored(
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
pub fn is_read(key: &str) -> bool {
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
