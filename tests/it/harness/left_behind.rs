//! What a finished, failed or killed xdb must not leave: scratch files, processes, uploads, locks.

use std::collections::HashMap;
use std::time::Duration;

use super::time::Time;
use super::{Lab, SCRATCH};

/// The keys of every unfinished multipart upload; fails when S3 does not say.
const UPLOADS: &str = r#"
    for bucket in $(ls /srv/s3); do
        listing=$(curl -sS --fail -m 10 --aws-sigv4 aws:amz:us-east-1:s3 --user lab:lab-secret-key \
            "http://127.0.0.1:7070/$bucket?uploads=") || exit 1
        grep -o '<Key>[^<]*' <<<"$listing" | sed "s|<Key>|$bucket/|"
    done"#;

impl Lab {
    /// Panics when something is still left after a few seconds, naming it.
    pub fn assert_nothing_left_behind(&self) {
        let time = Time::start();
        loop {
            let left = self.left_behind();
            if left.is_empty() {
                return;
            }
            assert!(
                !time.is_past(Duration::from_secs(5)),
                "left behind:\n  {}",
                left.join("\n  ")
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// What no test may leave, a line each: scratch, locks, unfinished uploads, processes.
    pub fn left_behind(&self) -> Vec<String> {
        // `lock` is the file that a daemon and a command line share, held or not.
        let files = self.ok(&format!(
            "test ! -d {SCRATCH} || find {SCRATCH} -mindepth 1 -maxdepth 1 ! '(' -name lock -type f ')'"
        ));
        let locks = self.ok("find /srv/s3 -path '*/xdb/*/locks/*' -type f");
        let uploads = self.ok(UPLOADS);
        // runit writes the process id of a service that runs, and an empty file for one that does not.
        let live = self
            .ok("cat /run/service/postgres/supervise/pid 2>/dev/null || true")
            .parse()
            .ok();
        let processes = self.ok("ps -eo pid=,ppid=,stat=,args=");

        let named = |what: &'static str, lines: &str| -> Vec<String> {
            lines.lines().map(|line| format!("{what} {line}")).collect()
        };
        let mut left = named("scratch", &files);
        left.extend(named("lock", &locks));
        left.extend(named("unfinished upload", &uploads));
        left.extend(
            strays(&processes, live)
                .into_iter()
                .map(|process| format!("process {process}")),
        );
        left
    }
}

/// The processes of xdb, its programs and PostgreSQL that do not belong to the live cluster.
///
/// An archive_command at work is the live postmaster's descendant, and no stray.
fn strays<'a>(ps: &'a str, live_postmaster: Option<u32>) -> Vec<&'a str> {
    let rows: Vec<(u32, u32, &str, &str, &'a str)> = ps
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let (pid, parent) = (columns.next()?.parse().ok()?, columns.next()?.parse().ok()?);
            Some((pid, parent, columns.next()?, columns.next()?, line.trim()))
        })
        .collect();
    let parents: HashMap<u32, u32> = rows
        .iter()
        .map(|&(pid, parent, ..)| (pid, parent))
        .collect();
    let is_live = |pid: u32| {
        std::iter::successors(Some(pid), |pid| {
            parents.get(pid).copied().filter(|&parent| parent != 0)
        })
        .any(|pid| Some(pid) == live_postmaster)
    };
    rows.iter()
        .filter(|&&(pid, _, state, program, _)| {
            let name = program.rsplit('/').next().unwrap_or(program);
            // A zombie is its parent's business, and the parent is in this list itself.
            !state.starts_with('Z')
                && matches!(
                    name,
                    "xdb"
                        | "walrus"
                        | "wal-g"
                        | "pg_dump"
                        | "pg_dumpall"
                        | "pg_restore"
                        | "initdb"
                        | "postgres"
                        | "postgres:"
                )
                && !is_live(pid)
        })
        .map(|&(.., line)| line)
        .collect()
}

#[test]
fn strays_are_told_from_the_live_cluster() {
    let ps = "
        1     0 Ss   tini -- /etc/xdb-lab/entry
       35    31 S    /usr/lib/postgresql/17/bin/postgres -D /var/lib/postgresql/17/main
       55    35 Ss   postgres: archiver archiving 000000010000000000000001
       60    55 S    sh -c xdb wal-push \"pg_wal/000000010000000000000001\"
       61    60 S    xdb wal-push pg_wal/000000010000000000000001
       70     1 Ss   /usr/lib/postgresql/17/bin/postgres -D /var/lib/xdb/restore-test/1/data
       71    70 Ss   postgres: startup recovering
       80     1 S    /usr/local/bin/walrus backup-fetch x LATEST
       81     1 Z    [wal-g] <defunct>";
    let found: Vec<&str> = strays(ps, Some(35))
        .iter()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(found, ["70", "71", "80"]);
    assert_eq!(
        strays(ps, None).len(),
        6,
        "with the live cluster down, all of its processes are strays"
    );
}
