//! What the last words of a program or a server tell: damage, or trouble that says nothing of the backup.

/// Words of programs, kernels and S3 servers for a network that failed, not for an object that is damaged.
pub(super) fn speaks_of_network(stderr: &str) -> bool {
    const WORDS: [&str; 10] = [
        "connection",
        "timeout",
        "timed out",
        "refused",
        "unreachable",
        "no such host",
        "sending request",
        "slowdown",
        "service unavailable",
        "expiredtoken",
    ];
    let stderr = stderr.to_ascii_lowercase();
    WORDS.iter().any(|words| stderr.contains(words))
}

/// Whether a server that ended says that its data or WAL is bad; running out of memory, or being killed, does not.
pub(super) fn is_damage(reason: &str) -> bool {
    const ELSEWHERE: [&str; 7] = [
        "out of memory",
        "Cannot allocate memory",
        "shared memory",
        "Too many open files",
        "command not found",
        "Permission denied",
        "could not load library",
    ];
    let fatal = ["FATAL:", "PANIC:", "xdb wal-fetch:"]
        .iter()
        .any(|level| reason.contains(level));
    fatal && !ELSEWHERE.iter().any(|words| reason.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_for_damage_is_held_against_the_backup() {
        for (reason, damage) in [
            (
                "FATAL:  could not locate required checkpoint record at 0/3000028",
                true,
            ),
            ("PANIC:  WAL contains references to invalid pages", true),
            (
                "FATAL:  could not restore file (xdb wal-fetch: walrus wal-fetch failed: exit status: 1)",
                true,
            ),
            (
                "FATAL:  could not map anonymous shared memory: Cannot allocate memory",
                false,
            ),
            ("LOG:  database system is ready", false),
            ("it left an empty log", false),
        ] {
            assert_eq!(is_damage(reason), damage, "{reason}");
        }
        assert!(speaks_of_network(
            "ERROR transport error: error sending request for url"
        ));
        assert!(!speaks_of_network("lz4: unexpected end of frame"));
    }
}
