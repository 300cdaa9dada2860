//! Children that reach no other server: the kernel refuses the system calls (seccomp(2)).
//!
//! No namespace: unprivileged containers and systemd's `RestrictNamespaces=` forbid those, and an empty network namespace
//! would still let a child connect to the live server's Unix socket.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter,
};
use tokio::process::Command;

/// What a child may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Be a client of a server on this machine, by its Unix socket.
    UnixSockets,
    /// Be a server on a Unix socket, and a client of none.
    Nothing,
}

/// Whether this kernel, or the container that xdb runs in, lets xdb refuse system calls to its children.
pub(crate) fn can_cut_off() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    let operation = libc::c_ulong::from(libc::SECCOMP_GET_ACTION_AVAIL);
    let no_flags: libc::c_ulong = 0;
    // SAFETY: seccomp(2) reads one u32, which lives until the call ends.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, operation, no_flags, &raw const action) };
    answer == 0 && filter(Reach::Nothing).is_some()
}

/// Leaves `command`, and all that it starts, without a network; it does not start where that fails.
///
/// Its calls fail as on a machine that has no route: "Network is unreachable".
pub(crate) fn cut_off(command: &mut Command, reach: Reach) {
    let program = filter(reach);
    // SAFETY: between fork and exec only prctl(2) and seccomp(2) are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || install(program.as_ref()));
    }
}

fn install(program: Option<&BpfProgram>) -> io::Result<()> {
    let program = program.ok_or(io::ErrorKind::Unsupported)?;
    apply_filter(program).map_err(|error| match error {
        Error::Prctl(error) | Error::Seccomp(error) => error,
        _ => io::ErrorKind::InvalidInput.into(),
    })
}

/// `None` for a processor that the crate does not know.
fn filter(reach: Reach) -> Option<BpfProgram> {
    let unix = u64::from(libc::AF_UNIX.unsigned_abs());
    let no_unix = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, unix).ok()?;
    let mut refused = BTreeMap::from([
        (
            libc::SYS_socket,
            vec![SeccompRule::new(vec![no_unix]).ok()?],
        ),
        // It makes connections without the other calls.
        (libc::SYS_io_uring_setup, Vec::new()),
    ]);
    if reach == Reach::Nothing {
        refused.insert(libc::SYS_connect, Vec::new());
    }
    let unreachable = SeccompAction::Errno(libc::ENETUNREACH.unsigned_abs());
    let processor = std::env::consts::ARCH.try_into().ok()?;
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, unreachable, processor).ok()?;
    filter.try_into().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::time::Duration;

    use super::*;
    use crate::process;

    /// Dials with the shell's and perl's own means; says `reached` for each server that answers.
    async fn dial(reach: Option<Reach>) -> String {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("socket");
        let (tcp, unix) = (
            TcpListener::bind("127.0.0.1:0").unwrap(),
            UnixListener::bind(&path).unwrap(),
        );
        let port = tcp.local_addr().unwrap().port();
        let script = format!(
            r#"use Socket;
            sub said {{ print STDOUT $_[0] ? "reached\n" : "$!\n" }}
            my ($one, $two, $three, $four);
            said(socket($one, PF_INET, SOCK_STREAM, 0) && connect($one, sockaddr_in({port}, inet_aton("127.0.0.1"))));
            said(socket($two, PF_UNIX, SOCK_STREAM, 0) && connect($two, sockaddr_un("{}")));
            said(socketpair($three, $four, AF_UNIX, SOCK_STREAM, PF_UNSPEC));"#,
            path.display()
        );
        let mut command = process::command("perl");
        command.args(["-e", &script]);
        if let Some(reach) = reach {
            cut_off(&mut command, reach);
        }
        let limit = Duration::from_secs(20);
        let finished = process::run(command, limit).await.unwrap();
        drop((tcp, unix));
        assert!(finished.status.success(), "{finished:?}");
        String::from_utf8_lossy(&finished.stdout).into_owned()
    }

    #[tokio::test]
    async fn a_child_that_is_cut_off_reaches_no_server() {
        assert!(can_cut_off());
        let (reached, refused) = ("reached\n", "Network is unreachable\n");
        assert_eq!(dial(None).await, reached.repeat(3));
        assert_eq!(
            dial(Some(Reach::UnixSockets)).await,
            format!("{refused}{reached}{reached}")
        );
        assert_eq!(
            dial(Some(Reach::Nothing)).await,
            format!("{refused}{refused}{reached}")
        );
    }
}
