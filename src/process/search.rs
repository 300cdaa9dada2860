//! Where programs are, and what a child finds in its own environment.
//!
//! Debian's `pg_ctlcluster` starts PostgreSQL without a `PATH`, and what starts nothing but xdb may leave `HOME` out: the
//! usual directories are searched everywhere, so that every way to start xdb finds the same programs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

const USUAL: &[&str] = &[
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
];

/// Where Debian keeps the programs of each major version: `/usr/lib/postgresql/17/bin`.
const POSTGRESQL: &str = "/usr/lib/postgresql";

/// Finds `program`: a path as it is, a bare name on `PATH` and then in the usual directories.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    find_with(program, std::env::var_os("PATH").as_deref())
}

/// As [`find`], where `PATH` is `path`; `None` where it is not set.
pub(crate) fn find_with(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    if program.contains('/') {
        let path = PathBuf::from(program);
        return is_executable(&path).then_some(path);
    }
    let named = directories(path)
        .into_iter()
        .map(|folder| folder.join(program));
    named.into_iter().find(|path| is_executable(path))
}

/// `PATH` for a child: this process's own, and the usual directories after it.
pub(super) fn path() -> OsString {
    let all = directories(std::env::var_os("PATH").as_deref());
    // A directory with a colon in its name cannot be on PATH.
    std::env::join_paths(&all).unwrap_or_else(|_| USUAL.join(":").into())
}

/// `HOME` for a child: wal-g ends without one, and libpq reads passwords and certificates there.
pub(super) fn home() -> OsString {
    let users = || fs::read_to_string("/etc/passwd").unwrap_or_default();
    let user = rustix::process::geteuid().as_raw();
    home_from(std::env::var_os("HOME"), user, users)
}

fn home_from(set: Option<OsString>, user: u32, users: impl FnOnce() -> String) -> OsString {
    /// Debian's home directory of users without one: no file of another user is taken for a password file.
    const NONE: &str = "/nonexistent";
    let set = set.filter(|home| Path::new(home).is_absolute());
    set.unwrap_or_else(|| home_of(user, &users()).unwrap_or(NONE).into())
}

/// The home directory of the user with this number in passwd(5).
fn home_of(user: u32, users: &str) -> Option<&str> {
    let fields = users.lines().map(|line| line.split(':'));
    fields.into_iter().find_map(|mut fields| {
        let number = fields.nth(2)?;
        let home = fields.nth(2)?;
        (number.parse() == Ok(user) && home.starts_with('/')).then_some(home)
    })
}

/// An empty entry of `PATH` would be the working directory, which is the data directory in archive_command.
fn directories(path: Option<&OsStr>) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = Vec::new();
    let on_path = path.into_iter().flat_map(std::env::split_paths);
    let own = std::env::current_exe().ok();
    let own = own.and_then(|own| own.parent().map(Path::to_owned));
    let usual = USUAL.iter().map(PathBuf::from);
    for folder in on_path.chain(usual).chain(own).chain(of_postgresql()) {
        if folder.is_absolute() && !all.contains(&folder) {
            all.push(folder);
        }
    }
    all
}

/// Newest first.
fn of_postgresql() -> Vec<PathBuf> {
    let entries = fs::read_dir(POSTGRESQL).into_iter().flatten().flatten();
    let major = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
    let mut majors: Vec<u32> = entries.filter_map(major).collect();
    majors.sort_unstable_by(|one, other| other.cmp(one));
    let bin = |major: u32| Path::new(POSTGRESQL).join(major.to_string()).join("bin");
    majors.into_iter().map(bin).collect()
}

fn is_executable(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok() && path.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_with_any_path() {
        let sh = |path: Option<&str>| find_with("sh", path.map(OsStr::new));
        for path in [None, Some(""), Some("/nowhere"), Some("relative:/nowhere")] {
            let found = sh(path).unwrap_or_else(|| panic!("not with {path:?}"));
            assert!(found.is_absolute(), "{path:?}: {}", found.display());
        }
        assert_eq!(find_with("no-such-program", None), None);
        assert_eq!(find_with("/nowhere/sh", None), None);
    }

    #[test]
    fn path_comes_before_the_usual_directories_and_each_is_there_once() {
        let all = directories(Some(OsStr::new("/opt/wal-g::/usr/bin:/opt/wal-g:.")));
        let all: Vec<_> = all.iter().filter_map(|folder| folder.to_str()).collect();
        assert_eq!(all[..3], ["/opt/wal-g", "/usr/bin", "/usr/local/bin"]);
        for folder in USUAL {
            let times = all.iter().filter(|other| *other == folder).count();
            assert_eq!(times, 1, "{folder}");
        }
        assert!(!all.contains(&".") && !all.contains(&""));
    }

    #[test]
    fn a_home_is_read_from_the_list_of_users() {
        let users = "root:x:0:0:root:/root:/bin/bash\n\
                     broken:x\n\
                     postgres:x:104:107:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(home_of(104, users), Some("/var/lib/postgresql"));
        assert_eq!(home_of(0, users), Some("/root"));
        assert_eq!(home_of(7, users), None);
        for (set, user, home) in [
            (Some("/srv/xdb"), 104, "/srv/xdb"),
            (Some(""), 104, "/var/lib/postgresql"),
            (Some("relative"), 104, "/var/lib/postgresql"),
            (None, 104, "/var/lib/postgresql"),
            (None, 7, "/nonexistent"),
        ] {
            let found = home_from(set.map(OsString::from), user, || users.to_owned());
            assert_eq!(found, home, "{set:?} {user}");
        }
    }
}
