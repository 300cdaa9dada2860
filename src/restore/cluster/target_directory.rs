//! Whether a cluster may be restored to a directory: it is empty, this user's, and no server's.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::layout::{LAST, WORK, has_recovered};
use super::shell::shell;
use crate::restore::RestoreError;
use crate::restore::scratch::{existing_ancestor, take_lock};

/// Whether a cluster may be restored to `directory`; nothing is touched.
///
/// # Errors
/// [`RestoreError::Refused`]: it is not empty, another's, part of a data directory, or holds a restore that did not end.
pub(crate) fn check_target_directory(directory: &Path) -> Result<(), RestoreError> {
    let refused = |reason: String, hint: String| Err(RestoreError::Refused { reason, hint });
    let shown = directory.display();
    let around = |from: &Path| -> Vec<PathBuf> { from.ancestors().map(Path::to_owned).collect() };
    let resolved = existing_ancestor(directory).canonicalize();
    let resolved = resolved.map_err(|source| unreadable(directory, source))?;
    for above in around(&resolved) {
        if let Some(pid) = live_postmaster(&above) {
            let hint = "stop that server first, or name another directory".to_owned();
            return refused(
                format!("a server runs in {} (process {pid})", above.display()),
                hint,
            );
        }
        if above.join(LAST).exists() && (above != resolved || !directory.exists()) {
            return refused(
                format!("{shown} lies in the data directory {}", above.display()),
                "name a directory of its own".to_owned(),
            );
        }
    }
    let metadata = match fs::metadata(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(|source| unreadable(directory, source))?,
    };
    if !metadata.is_dir() {
        return refused(
            format!("{shown} is no directory"),
            "name an empty one, or one that is not there yet".to_owned(),
        );
    }
    check_owner(directory)?;
    let work = directory.join(WORK);
    if work.exists() {
        // Another restore that runs there holds it.
        take_lock(&work)?;
        if has_recovered(directory) {
            return refused(
                format!(
                    "{shown} holds a cluster that has recovered: only the last steps of its restore are missing"
                ),
                format!(
                    "complete it: xdb restore --target-dir {} --finish",
                    shell(directory)
                ),
            );
        }
        let work = shell(&work);
        return refused(
            format!("{shown} holds a restore of xdb's that did not end"),
            format!(
                "its recovery did not end, and cannot be continued: remove it with `chmod -R u+w {work} && rm -r {work}`, then restore again"
            ),
        );
    }
    let mut entries = fs::read_dir(directory).map_err(|source| unreadable(directory, source))?;
    if entries.next().is_some() {
        return refused(
            format!("{shown} is not empty"),
            format!(
                "move what it holds aside first: mv -T {0} {0}.old",
                shell(directory)
            ),
        );
    }
    Ok(())
}

/// Whether `directory` is this user's.
///
/// # Errors
/// [`RestoreError::Refused`] where it is another's.
pub(crate) fn check_owner(directory: &Path) -> Result<(), RestoreError> {
    let metadata = fs::metadata(directory).map_err(|source| unreadable(directory, source))?;
    if metadata.uid() == geteuid().as_raw() {
        return Ok(());
    }
    Err(RestoreError::Refused {
        reason: format!("{} belongs to another user", directory.display()),
        hint: format!(
            "PostgreSQL would refuse it, too: chown postgres {}",
            shell(directory)
        ),
    })
}

fn unreadable(path: &Path, source: io::Error) -> RestoreError {
    RestoreError::File {
        operation: "look at",
        path: path.to_owned(),
        source,
    }
}

/// The process that `postmaster.pid` names, where it is the server of `data`. A crash leaves the file, and after a reboot
/// another process may have its number.
pub(crate) fn live_postmaster(data: &Path) -> Option<u32> {
    let text = fs::read_to_string(data.join("postmaster.pid")).ok()?;
    let pid: u32 = text.lines().next()?.trim().parse().ok()?;
    let owners = (owner(format!("/proc/{pid}")), owner(data));
    let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
    is_server_of(data, cwd, owners).then_some(pid)
}

/// Whether a process with this working directory is the server of `data`; `owners` are those of the process and of `data`.
fn is_server_of(data: &Path, cwd: io::Result<PathBuf>, owners: (Option<u32>, Option<u32>)) -> bool {
    match cwd {
        Ok(cwd) => cwd == data,
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        // It cannot be read. A server runs as the user that owns its data directory.
        Err(_) => match owners {
            (Some(process), Some(directory)) => process == directory,
            _ => true,
        },
    }
}

fn owner(path: impl AsRef<Path>) -> Option<u32> {
    fs::metadata(path).ok().map(|metadata| metadata.uid())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(directory: &Path) -> String {
        check_target_directory(directory).unwrap_err().to_string()
    }

    #[test]
    fn only_an_empty_directory_of_ones_own_is_taken() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        fs::create_dir_all(at("empty")).unwrap();
        check_target_directory(&at("empty")).unwrap();
        check_target_directory(&at("not/there/yet")).unwrap();
        fs::create_dir_all(at("full/sub")).unwrap();
        assert!(refusal(&at("full")).contains("is not empty"));
        fs::write(at("file"), "").unwrap();
        assert!(refusal(&at("file")).contains("is no directory"));
        assert!(
            refusal(Path::new("/etc")).contains("belongs to another user") || geteuid().is_root()
        );
        fs::write(at("full/PG_VERSION"), "17\n").unwrap();
        assert!(refusal(&at("full/new")).contains("lies in the data directory"));
        assert!(refusal(&at("full/sub")).contains("lies in the data directory"));
        assert!(refusal(&at("full")).contains("is not empty"));
    }

    #[test]
    fn the_directory_of_a_server_that_runs_is_refused_and_of_one_that_crashed_is_not_empty() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().canonicalize().unwrap().join("data");
        fs::create_dir(&data).unwrap();
        let mut server = std::process::Command::new("sleep")
            .arg("60")
            .current_dir(&data)
            .spawn()
            .unwrap();
        fs::write(data.join("postmaster.pid"), format!("{}\n", server.id())).unwrap();
        for directory in [data.clone(), data.join("new")] {
            let refused = refusal(&directory);
            assert!(refused.contains("a server runs in"), "{refused}");
        }
        server.kill().unwrap();
        server.wait().unwrap();
        assert!(refusal(&data).contains("is not empty"));
    }

    #[test]
    fn a_process_that_has_the_number_of_a_server_since_a_reboot_is_none() {
        let data = Path::new("/data");
        let denied = || Err(ErrorKind::PermissionDenied.into());
        for (cwd, owners, is_server) in [
            (Ok(data.to_owned()), (Some(5), Some(5)), true),
            (Ok("/".into()), (Some(5), Some(5)), false),
            (Err(ErrorKind::NotFound.into()), (None, Some(5)), false),
            (denied(), (Some(0), Some(5)), false),
            (denied(), (Some(5), Some(5)), true),
            (denied(), (None, Some(5)), true),
        ] {
            let judged = is_server_of(data, cwd, owners);
            assert_eq!(judged, is_server, "{owners:?}");
        }
    }

    #[test]
    fn a_restore_that_was_killed_is_told_from_other_content() {
        let parent = tempfile::tempdir().unwrap();
        let new = parent.path().join("new");
        let work = new.join(WORK);
        // As after kill -9: nothing is dropped, and the lock is free.
        fs::create_dir_all(work.join("data/global")).unwrap();
        let error = check_target_directory(&new).unwrap_err();
        assert!(error.to_string().contains("did not end"), "{error}");
        let hint = error.hint().unwrap();
        let work_shown = work.display();
        assert!(hint.contains(&format!("&& rm -r {work_shown}`")), "{hint}");
        // The same after its recovery.
        fs::create_dir(work.join("brought")).unwrap();
        fs::write(work.join("data/global/pg_control"), "").unwrap();
        let error = check_target_directory(&new).unwrap_err();
        assert!(error.to_string().contains("has recovered"), "{error}");
        let hint = error.hint().unwrap();
        assert!(
            hint.ends_with("--finish") && !hint.contains("rm "),
            "{hint}"
        );
    }
}
