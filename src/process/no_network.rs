//! Children that reach no other server: the kernel refuses the system calls (seccomp(2)).
//!
//! No namespace: unprivileged containers and systemd's `RestrictNamespaces=` forbid those, and an empty network namespace
//! would still let a child connect to the live server's Unix socket.

use std::io;

use tokio::process::Command;

/// An argument of a system call.
type Word = libc::c_ulong;

/// What a child may still do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Be a client of a server on this machine, by its Unix socket.
    UnixSockets,
    /// Be a server on a Unix socket, and a client of none.
    Nothing,
}

/// Whether this kernel, or the container that xdb runs in, lets xdb refuse system calls to its children.
pub fn can_cut_off() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    let (operation, no_flags) = (Word::from(libc::SECCOMP_GET_ACTION_AVAIL), 0 as Word);
    // SAFETY: seccomp(2) reads one u32, which lives until the call ends.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, operation, no_flags, &raw const action) };
    AUDIT_ARCH.is_some() && answer == 0
}

/// Leaves `command`, and all that it starts, without a network; it does not start where that fails.
///
/// Its calls fail as on a machine that has no route: "Network is unreachable".
pub fn cut_off(command: &mut Command, reach: Reach) {
    let program = filter(reach);
    // SAFETY: between fork and exec only prctl(2) and seccomp(2) are called, which are async-signal-safe.
    unsafe {
        command.pre_exec(move || install(&program));
    }
}

fn install(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(0),
        filter: program.as_ptr().cast_mut(),
    };
    // The filter costs a server no more than it must: it is no defence against speculation.
    let flags: [Word; 2] = [libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, 0];
    let (operation, yes, zero) = (
        Word::from(libc::SECCOMP_SET_MODE_FILTER),
        1 as Word,
        0 as Word,
    );
    // SAFETY: `program` and what it points to live until the calls end; the kernel copies both.
    unsafe {
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, zero, zero, zero) != 0 {
            return Err(io::Error::last_os_error());
        }
        for flags in flags {
            let set = libc::syscall(libc::SYS_seccomp, operation, flags, &raw const program);
            if set == 0 {
                return Ok(());
            }
        }
    }
    Err(io::Error::last_os_error())
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: Option<u32> = Some(0xC000_003E);
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: Option<u32> = Some(0xC000_00B7);
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const AUDIT_ARCH: Option<u32> = None;

/// Calls from here on are those of another interface of the same processor (x32).
const OTHER_INTERFACE: u32 = 0x4000_0000;
/// Offsets in `seccomp_data`: the call, the architecture, the lower half of the first argument (little endian).
const CALL: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

/// A program of the kernel's packet filter: each jump goes to the end, or to the next statement.
fn filter(reach: Reach) -> Vec<libc::sock_filter> {
    let answer = |errno: i32| libc::SECCOMP_RET_ERRNO | errno.unsigned_abs();
    let unreachable = answer(libc::ENETUNREACH);
    let mut program = Vec::new();
    // Another architecture numbers its calls in another way.
    program.push(load(ARCHITECTURE));
    program.extend(unless(
        libc::BPF_JEQ,
        AUDIT_ARCH.unwrap_or(0),
        answer(libc::EPERM),
    ));
    program.push(load(CALL));
    program.extend(when(libc::BPF_JGE, OTHER_INTERFACE, answer(libc::EPERM)));
    // It makes connections without the calls below.
    program.extend(when(
        libc::BPF_JEQ,
        number(libc::SYS_io_uring_setup),
        answer(libc::ENOSYS),
    ));
    if reach == Reach::Nothing {
        program.extend(when(libc::BPF_JEQ, number(libc::SYS_connect), unreachable));
    }
    program.extend(unless(
        libc::BPF_JEQ,
        number(libc::SYS_socket),
        libc::SECCOMP_RET_ALLOW,
    ));
    program.push(load(FIRST_ARGUMENT));
    program.extend(unless(
        libc::BPF_JEQ,
        libc::AF_UNIX.unsigned_abs(),
        unreachable,
    ));
    program.push(give(libc::SECCOMP_RET_ALLOW));
    program
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (0, 0), offset)
}

fn give(answer: u32) -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, (0, 0), answer)
}

/// Gives `answer` where what was loaded compares so with `value`.
fn when(comparison: u32, value: u32, answer: u32) -> [libc::sock_filter; 2] {
    let code = libc::BPF_JMP | comparison | libc::BPF_K;
    [statement(code, (0, 1), value), give(answer)]
}

/// Gives `answer` where what was loaded does not compare so with `value`.
fn unless(comparison: u32, value: u32, answer: u32) -> [libc::sock_filter; 2] {
    let code = libc::BPF_JMP | comparison | libc::BPF_K;
    [statement(code, (1, 0), value), give(answer)]
}

fn statement(code: u32, (jt, jf): (u8, u8), k: u32) -> libc::sock_filter {
    let code = u16::try_from(code).unwrap_or(u16::MAX);
    libc::sock_filter { code, jt, jf, k }
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
