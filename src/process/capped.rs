//! One cgroup for all low-priority children: where it runs out of memory, the kernel ends them, and nothing else of this node.
//!
//! Of cgroups(7), version 2: version 1 hands no user a part of its own.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use procfs::process::Process;
use procfs::{Current, Meminfo, ProcessCGroups};

/// What a scratch server and the program that fetches take at most, and some more.
pub(crate) const LOW_PRIORITY_MEMORY: u64 = 512 << 20;

const HIERARCHY: &str = "/sys/fs/cgroup";

/// The part of its cgroup that xdb.service puts the daemon into (`DelegateSubgroup=`): what is beside it is xdb's to divide.
const OWN: &str = "daemon";

/// Goes with the unit's cgroup, which systemd removes.
const CAPPED: &str = "modest";

#[derive(Debug)]
struct Capped {
    directory: PathBuf,
    procs: File,
    limit: u64,
}

static GROUP: LazyLock<Option<Capped>> = LazyLock::new(|| {
    let made = make();
    if let Err(error) = &made {
        tracing::debug!("restore tests have no memory limit of their own: {error}");
    }
    made.ok()
});

/// Where a child writes `0` to join; `None` where xdb has no cgroup to divide.
pub(super) fn procs() -> Option<BorrowedFd<'static>> {
    GROUP.as_ref().map(|group| group.procs.as_fd())
}

/// The bytes that all low-priority children of this daemon may take together, file pages included; `None` where nothing holds
/// them to any.
pub(crate) fn low_priority_limit() -> Option<u64> {
    GROUP.as_ref().map(|group| group.limit)
}

/// How often the kernel had to end low-priority children for want of more than [`low_priority_limit`], ever.
pub(crate) fn low_priority_kills() -> u64 {
    let events = |group: &Capped| fs::read_to_string(group.directory.join("memory.events")).ok();
    let events = GROUP.as_ref().and_then(events);
    events.map_or(0, |events| kills(&events))
}

fn kills(events: &str) -> u64 {
    // Not `oom_kill`: these are the first to go where the whole machine runs out, too.
    let count = events.lines().find_map(|line| line.strip_prefix("oom "));
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

fn make() -> io::Result<Capped> {
    let own = Process::myself().and_then(|process| process.cgroups());
    let unit = unit(&own.map_err(io::Error::other)?).ok_or_else(|| {
        io::Error::other("only xdb.service on cgroups of version 2 hands one over")
    })?;
    let unit = Path::new(HIERARCHY).join(unit);
    fs::write(unit.join("cgroup.subtree_control"), "+memory")?;
    let directory = unit.join(CAPPED);
    match fs::create_dir(&directory) {
        // A daemon before this one's.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    let memory = Meminfo::current().map_err(io::Error::other)?;
    let limit = limit(memory.mem_total);
    fs::write(directory.join("memory.max"), limit.to_string())?;
    // Swapped out it would take the live server's disks instead. A kernel without swap has no such file.
    let _ = fs::write(directory.join("memory.swap.max"), "0");
    // A scratch server without one of its processes has nothing left to prove.
    fs::write(directory.join("memory.oom.group"), "1")?;
    let procs = File::options()
        .write(true)
        .open(directory.join("cgroup.procs"))?;
    Ok(Capped {
        directory,
        procs,
        limit,
    })
}

/// The unit's cgroup below the hierarchy; `None` where xdb is not in its part of it.
fn unit(own: &ProcessCGroups) -> Option<PathBuf> {
    // Version 2 is hierarchy 0.
    let own = own.0.iter().find(|group| group.hierarchy == 0)?;
    let own = Path::new(own.pathname.strip_prefix('/')?);
    if own.file_name()? != OWN {
        return None;
    }
    own.parent().map(Path::to_owned)
}

/// A quarter of the machine: room for what a replay reads again and again, and most is left to the live server.
fn limit(total: u64) -> u64 {
    (total / 4).max(LOW_PRIORITY_MEMORY)
}

#[cfg(test)]
mod tests {
    use procfs::FromRead;

    use super::*;

    #[test]
    fn only_the_part_that_the_unit_hands_over_is_divided() {
        let unit = |text: &str| unit(&ProcessCGroups::from_read(text.as_bytes()).unwrap());
        let in_unit = "0::/system.slice/xdb.service/daemon\n";
        assert_eq!(
            unit(in_unit),
            Some(PathBuf::from("system.slice/xdb.service"))
        );
        let others = [
            "",
            "0::/\n",
            "0::/system.slice/xdb.service\n",
            "0::/user.slice/user-0.slice/session-1.scope\n",
            // Version 1 beside an empty version 2.
            "4:memory:/system.slice/xdb.service/daemon\n0::/\n",
        ];
        for other in others {
            assert_eq!(unit(other), None, "{other}");
        }
    }

    #[test]
    fn a_small_machine_still_has_room_for_a_restore() {
        assert_eq!(limit(1 << 30), LOW_PRIORITY_MEMORY);
        assert_eq!(limit(16 << 30), 4 << 30);
    }

    #[test]
    fn the_kernels_count_of_its_own_ends_is_read() {
        let events = "low 0\nhigh 0\nmax 812\noom 3\noom_kill 2\noom_group_kill 1\n";
        assert_eq!((kills(events), kills("")), (3, 0));
    }
}
