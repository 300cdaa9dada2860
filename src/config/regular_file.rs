//! Opens the files that a setting or an operator's directory names.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file of at most `limit` bytes for reading. A pipe that nothing writes to and a device without end hold up nothing.
///
/// # Errors
/// When it cannot be opened, is no regular file, or is larger.
pub(crate) fn open_regular(path: &Path, limit: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)?;
    let metadata = file.metadata()?;
    let refused = |why: String| Err(io::Error::new(ErrorKind::InvalidInput, why));
    if !metadata.is_file() {
        return refused("it is not a regular file".to_owned());
    }
    if metadata.len() > limit {
        return refused(format!("it has more than {limit} bytes"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn only_a_regular_file_that_is_not_too_large_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), mode).unwrap();
        std::fs::write(path("file"), "12345").unwrap();
        let mut text = String::new();
        let mut file = open_regular(&path("file"), 5).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "12345");
        let dev_zero = Path::new("/dev/zero");
        for (path, limit, words) in [
            (path("file"), 4, "more than 4 bytes"),
            (path("pipe"), 9, "not a regular file"),
            (dev_zero.to_owned(), 9, "not a regular file"),
            (directory.path().to_owned(), 9, "not a regular file"),
        ] {
            let error = open_regular(&path, limit).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
        let missing = open_regular(&path("missing"), 9).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }
}
