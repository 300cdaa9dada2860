//! One holder a node: a locked file, with a mark of what its holder began.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

/// A file under `flock(2)`, given up when dropped; its content, the mark, outlives a holder that is killed.
#[derive(Debug)]
pub(crate) struct MarkedLock {
    file: File,
}

impl MarkedLock {
    /// `None` while another process of this node holds it.
    ///
    /// # Errors
    /// When the file cannot be made or locked.
    pub(crate) fn take(path: &Path) -> io::Result<Option<Self>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// What the last holder left there; empty when it finished.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn mark(&mut self) -> io::Result<String> {
        let mut text = String::new();
        self.file.rewind()?;
        self.file.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Puts `mark` there, on the disk when this returns.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn set_mark(&mut self, mark: &str) -> io::Result<()> {
        self.clear()?;
        self.file.write_all(mark.as_bytes())?;
        self.file.sync_all()
    }

    /// Says that nothing is left to clean up.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()
    }
}

/// One process a node, also where its directory cannot be written, or is not there.
#[derive(Debug)]
pub(crate) struct NodeLock {
    _files: Vec<File>,
    _name: Option<UnixListener>,
}

impl NodeLock {
    /// `None` while another process of this node holds it.
    ///
    /// It locks the directory, and the file `name` in it where that can be made or read. Without the directory it
    /// takes an address of the kernel, which needs no file at all.
    ///
    /// # Errors
    /// When the kernel refuses a lock for another reason.
    pub(crate) fn take(directory: &Path, name: &str) -> io::Result<Option<Self>> {
        let path = directory.join(name);
        let made = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        // A file that cannot be written can be locked all the same.
        let file = made.or_else(|_| File::open(&path));
        let files: Vec<File> = [File::open(directory), file]
            .into_iter()
            .filter_map(Result::ok)
            .collect();
        for file in &files {
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        let address = match files.is_empty() {
            true => match bind_name(&path) {
                Ok(listener) => Some(listener),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => return Ok(None),
                Err(error) => return Err(error),
            },
            false => None,
        };
        Ok(Some(Self {
            _files: files,
            _name: address,
        }))
    }
}

/// An abstract address: it ends with the process.
fn bind_name(path: &Path) -> io::Result<UnixListener> {
    let name = format!("xdb:{}", path.display());
    let kept: Vec<u8> = name.into_bytes().into_iter().take(100).collect();
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(kept)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_a_node_whether_its_directory_can_be_used_or_not() {
        let directory = tempfile::tempdir().unwrap();
        let missing = directory.path().join("missing");
        let unwritable = directory.path().join("unwritable");
        std::fs::create_dir(&unwritable).unwrap();
        // A directory of that name: no file can be made there.
        std::fs::create_dir(unwritable.join("lock")).unwrap();
        for directory in [directory.path(), &missing, &unwritable] {
            let take = || NodeLock::take(directory, "lock").unwrap();
            let first = take();
            assert!(first.is_some(), "{directory:?}");
            assert!(take().is_none(), "{directory:?}");
            drop(first);
            assert!(take().is_some(), "{directory:?}");
        }
        // The file alone is enough to keep a second one out.
        let file = MarkedLock::take(&directory.path().join("lock")).unwrap();
        assert!(file.is_some());
        assert!(NodeLock::take(directory.path(), "lock").unwrap().is_none());
    }

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
