//! The limit on open files: each HTTP connection, upload and session holds one.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one; gives what then holds, or `None` where there is no limit.
///
/// Where systemd or a shell started xdb, the soft limit is 1024 for programs that use select(2), which xdb does not.
pub(crate) fn raise_open_files() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let before = limit.current;
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!("the limit on open files stays {before:?}: {error}");
            return before;
        }
    }
    limit.current
}
