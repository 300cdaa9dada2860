//! Encryption of a set's objects in the format of age (age-encryption.org/v1), which the program `age` reads, too.
//!
//! Both directions take the stream in pieces and hold little of it: age's own chunks have 64 KiB.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use age::stream::{StreamReader, StreamWriter};
use age::{DecryptError, Decryptor, Encryptor, Recipient};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, ReadBuf};

use super::identity::{Identities, named};
use crate::config::AgeRecipient;

/// The plain bytes of one chunk of age, and what encryption adds to them.
const CHUNK: usize = 64 << 10;
const TAG: usize = 16;
/// A header has 200 bytes and a hundred for each recipient; a longer one is none.
const LONGEST_HEADER: usize = 64 << 10;
/// Behind the name of an encrypted object.
pub(super) const SUFFIX: &str = ".age";

/// How an object is encrypted, and what it is when it is decrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Encryption {
    /// The identity of each of them decrypts it.
    pub age_recipients: Vec<String>,
    /// Not their SHA-256: with it, a reader of the bucket could test guesses of the content.
    pub plain_bytes: u64,
}

/// Bytes between a reader or writer of age and its caller.
#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        // It is whole after each operation.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves what there is room for; `false` where nothing is held.
    fn give(&self, into: &mut ReadBuf<'_>) -> bool {
        let mut held = self.lock();
        let given = held.len().min(into.remaining());
        into.put_slice(&held[..given]);
        held.drain(..given);
        given > 0
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Buffer {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut held = self.lock();
        let taken = held.len().min(bytes.len());
        bytes[..taken].copy_from_slice(&held[..taken]);
        held.drain(..taken);
        Ok(taken)
    }
}

/// A source that is read encrypted.
pub(super) struct Encrypting<R> {
    source: R,
    recipients: Vec<String>,
    /// `None` once the source has ended.
    writer: Option<StreamWriter<Buffer>>,
    encrypted: Buffer,
    chunk: Box<[u8]>,
    plain_bytes: u64,
}

impl<R> Encrypting<R> {
    pub(super) fn new(source: R, recipients: &[AgeRecipient]) -> Self {
        let all = recipients.iter().map(|it| it as &dyn Recipient);
        let encryptor = Encryptor::with_recipients(all);
        let encryptor = encryptor.expect("there are recipients, and all are of one kind");
        let encrypted = Buffer::default();
        let writer = encryptor.wrap_output(encrypted.clone());
        Self {
            source,
            recipients: named(recipients),
            writer: Some(writer.expect("a buffer takes all")),
            encrypted,
            chunk: vec![0; CHUNK].into(),
            plain_bytes: 0,
        }
    }

    /// What was encrypted, after the end.
    pub(super) fn finish(self) -> Encryption {
        Encryption {
            age_recipients: self.recipients,
            plain_bytes: self.plain_bytes,
        }
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Encrypting<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let me = self.get_mut();
        loop {
            let is_given = me.encrypted.give(into) || into.remaining() == 0;
            let Some(writer) = me.writer.as_mut().filter(|_| !is_given) else {
                return Poll::Ready(Ok(()));
            };
            let mut chunk = ReadBuf::new(&mut me.chunk);
            ready!(Pin::new(&mut me.source).poll_read(context, &mut chunk))?;
            match chunk.filled() {
                [] => {
                    let writer = me.writer.take();
                    writer.map(StreamWriter::finish).transpose()?;
                }
                bytes => {
                    me.plain_bytes += bytes.len() as u64;
                    writer.write_all(bytes)?;
                }
            }
        }
    }
}

/// An encrypted object that is taken in piece by piece.
pub(super) struct Decrypting {
    identities: Identities,
    /// What was taken in and not decrypted yet.
    encrypted: Buffer,
    /// `None` until the header was read.
    reader: Option<StreamReader<Buffer>>,
    /// The header is looked for again once so much is held.
    next_look: usize,
    plain_bytes: u64,
    ended: bool,
}

impl Decrypting {
    pub(super) fn new(identities: Identities) -> Self {
        Self {
            identities,
            encrypted: Buffer::default(),
            reader: None,
            next_look: 0,
            plain_bytes: 0,
            ended: false,
        }
    }

    /// Takes the next piece in, `None` at the end, and returns what can be read since.
    ///
    /// # Errors
    /// Why it cannot be decrypted, with a right key: damage.
    pub(super) fn take(&mut self, piece: Option<&[u8]>) -> Result<Vec<u8>, String> {
        self.encrypted
            .lock()
            .extend_from_slice(piece.unwrap_or_default());
        let at_end = piece.is_none();
        self.ended |= at_end;
        if self.reader.is_none() && !self.open(at_end)? {
            return Ok(Vec::new());
        }
        let reader = self.reader.as_mut().expect("the header was read");
        let mut plain = Vec::new();
        // A chunk is decrypted whole; the last one may be shorter.
        while at_end || self.encrypted.lock().len() >= CHUNK + TAG {
            let from = plain.len();
            plain.resize(from + CHUNK, 0);
            let read = reader
                .read(&mut plain[from..])
                .map_err(|error| match error.kind() {
                    io::ErrorKind::UnexpectedEof => "it is cut off".to_owned(),
                    _ => format!("a part after byte {} is not authentic", self.plain_bytes),
                })?;
            plain.truncate(from + read);
            self.plain_bytes += read as u64;
            if read == 0 {
                break;
            }
        }
        Ok(plain)
    }

    /// Whether the end was taken in.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads the header, once it is whole: `false` until then.
    fn open(&mut self, at_end: bool) -> Result<bool, String> {
        {
            let held = self.encrypted.lock();
            let header = &held[..held.len().min(LONGEST_HEADER)];
            let is_all = at_end || held.len() >= LONGEST_HEADER;
            // To look at each piece again from the first byte on would take for ever where no header ends.
            if !is_all && held.len() < self.next_look {
                return Ok(false);
            }
            let is_short = |error: &DecryptError| matches!(error, DecryptError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof);
            match Decryptor::new_buffered(header) {
                Err(error) if is_short(&error) && !is_all => {
                    self.next_look = 2 * held.len();
                    return Ok(false);
                }
                Err(error) if is_short(&error) && at_end => {
                    return Err("it is cut off in its header".to_owned());
                }
                Err(_) => return Err("it has no header of age".to_owned()),
                Ok(_) => {}
            }
        }
        let opened = Decryptor::new(self.encrypted.clone());
        let opened = opened.and_then(|decryptor| decryptor.decrypt(self.identities.iter()));
        self.reader = Some(opened.map_err(|_| "its header is damaged".to_owned())?);
        Ok(true)
    }

    /// Whether what was decrypted is what `encryption` says; otherwise the difference.
    pub(super) fn judge(&self, encryption: &Encryption) -> Result<(), String> {
        let (read, named) = (self.plain_bytes, encryption.plain_bytes);
        if read != named {
            return Err(format!(
                "it has {read} bytes decrypted, its manifest says {named}"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "encryption_tests.rs"]
mod tests;
