//! One holder a node: a locked file, with a mark of what its holder began.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// A file under `flock(2)`, given up when dropped; its content, the mark, outlives a holder that is killed.
#[derive(Debug)]
pub struct MarkedLock {
    file: File,
}

impl MarkedLock {
    /// `None` while another process of this node holds it.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { file })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What the last holder left there; empty when it came to its end.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn mark(&mut self) -> io::Result<String> {
        let mut text = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Puts `mark` there, on the disk when this returns.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_mark(&mut self, mark: &str) -> io::Result<()> {
        self.clear()?;
        self.file.write_all(mark.as_bytes())?;
        self.file.sync_all()
    }

    /// Says that nothing is left to clean up.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_the_mark_outlives_the_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let take = || MarkedLock::take(&path).unwrap();
        let mut first = take().unwrap();
        assert!(take().is_none(), "two hold it");
        assert_eq!(first.mark().unwrap(), "");
        first.set_mark("a longer mark").unwrap();
        first.set_mark("begun").unwrap();
        drop(first);
        let mut next = take().unwrap();
        assert_eq!(next.mark().unwrap(), "begun");
        next.clear().unwrap();
        assert_eq!(next.mark().unwrap(), "");
    }
}
