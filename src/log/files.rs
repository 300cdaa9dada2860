//! The platform's log files, `/var/log/xeroops/xdb-{component}.log`: each opened at its first line, and anew after a rotation.
//!
//! Nothing here stops or holds up what is logged: a line that cannot be written is lost, and standard error says so, once a file.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where every service of the platform logs, from where the files go to S3 and to the dashboard's search.
pub(crate) const DIRECTORY: &str = "/var/log/xeroops";

/// One process's log files.
#[derive(Debug)]
pub(crate) struct Files {
    directory: PathBuf,
    files: Mutex<HashMap<String, LogFile>>,
}

#[derive(Debug, Default)]
struct LogFile {
    /// `None` before the first line, after a rotation, and while it cannot be written.
    open: Option<File>,
    /// Lines that could not be written since the last one that was.
    lost: u64,
}

impl Files {
    pub(super) fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            files: Mutex::default(),
        }
    }

    /// Closes every file, so that the next line goes to a new one where the old one was moved away.
    pub(crate) fn reopen(&self) {
        for file in self.lock().values_mut() {
            file.open = None;
        }
    }

    /// Appends `line`, which ends with a line break; what that leads to is for standard error.
    pub(super) fn write(&self, component: &str, line: &str) -> Option<String> {
        let mut files = self.lock();
        let file = files.entry(component.to_owned()).or_default();
        let path = self.directory.join(format!("xdb-{component}.log"));
        match file.append(&path, line) {
            Ok(()) => match std::mem::take(&mut file.lost) {
                0 => None,
                lost => Some(format!(
                    "{} is written again; lines that are missing there: {lost}",
                    path.display()
                )),
            },
            Err(error) => {
                file.lost += 1;
                (file.lost == 1).then(|| {
                    format!(
                        "{}: {error}; until it can be written, what is logged is on standard output only\n\
                         HINT: {} must be a directory that this user may write to",
                        path.display(),
                        self.directory.display()
                    )
                })
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, LogFile>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogFile {
    fn append(&mut self, path: &Path, line: &str) -> io::Result<()> {
        let mut file = match self.open.take() {
            Some(file) => file,
            None => open(path)?,
        };
        // One write a line: those of two processes never mix.
        if file.write(line.as_bytes())? < line.len() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.open = Some(file);
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o640)
        .open(path)?;
    // A full disk or a kill may have cut the last line off: the next one must not be spoiled too.
    let mut last = [b'\n'];
    if let Some(at) = file.metadata()?.len().checked_sub(1) {
        file.read_exact_at(&mut last, at)?;
    }
    if last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_rotated_file_gets_what_was_written_before_and_a_new_one_what_comes_after() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xdb-dump.log");
        let files = Files::new(directory.path());
        assert_eq!(files.write("dump", "1\n"), None);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o137, 0, "{mode:o}");
        let moved = directory.path().join("xdb-dump.log.1");
        fs::rename(&path, &moved).unwrap();
        files.write("dump", "2\n");
        files.reopen();
        files.write("dump", "3\n");
        files.write("dump", "4\n");
        assert_eq!(fs::read_to_string(&moved).unwrap(), "1\n2\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "3\n4\n");
    }

    #[test]
    fn a_directory_that_is_missing_is_told_once_and_used_once_it_is_there() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("logs");
        let files = Files::new(&directory);
        let told = files.write("daemon", "1\n").unwrap();
        assert!(
            told.contains("logs/xdb-daemon.log: No such file") && told.contains("HINT: "),
            "{told}"
        );
        assert_eq!(files.write("daemon", "2\n"), None);
        fs::create_dir(&directory).unwrap();
        let told = files.write("daemon", "3\n").unwrap();
        assert!(told.ends_with("missing there: 2"), "{told}");
        assert_eq!(files.write("daemon", "4\n"), None);
        let written = fs::read_to_string(directory.join("xdb-daemon.log")).unwrap();
        assert_eq!(written, "3\n4\n");
    }

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("xdb-daemon.log");
        fs::write(&path, "whole\ncut").unwrap();
        Files::new(directory.path()).write("daemon", "next\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole\ncut\nnext\n");
    }
}
