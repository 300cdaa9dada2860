//! Whether the dump of a database is tried again after an attempt failed. Pure.

use std::time::Duration;

use super::DumpError;
use crate::postgres::PostgresError;

/// So often objects may be dropped under an attempt.
const DROPS: u32 = 3;

/// What ended an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// Another session holds a table exclusively for longer than `dump.lock_timeout`.
    Locked,
    /// The standby's replay cancelled a query or ended a session (hot standby, "Handling Query Conflicts").
    Conflict,
    /// An object was dropped after the snapshot was taken, so that `pg_dump` could not read it.
    Dropped,
    /// Another attempt would fail the same way.
    Final,
}

impl Failure {
    /// Classifies `error` of an attempt; `standby` is whether it was made on one.
    pub(super) fn of(error: &DumpError, standby: bool) -> Self {
        match error {
            DumpError::TableLocks { .. } => Self::Locked,
            DumpError::TableLock { source, .. }
            | DumpError::Snapshot { source, .. }
            | DumpError::Count { source, .. }
                if has_code(source, &["55P03"]) =>
            {
                Self::Locked
            }
            DumpError::TableLock { source, .. }
            | DumpError::Snapshot { source, .. }
            | DumpError::Count { source, .. } => Self::of_session(source, standby),
            DumpError::Failed { reason, .. } => Self::of_program(reason, standby),
            _ => Self::Final,
        }
    }

    fn of_session(error: &PostgresError, standby: bool) -> Self {
        // The reason of a session that was ended between two queries is lost with it.
        let is_lost = matches!(error, PostgresError::Query { error, .. } if error.is_closed());
        if standby && (is_lost || is_conflict(&error.to_string())) {
            Self::Conflict
        } else if has_code(error, &["42P01", "3F000"]) {
            // undefined_table, invalid_schema_name.
            Self::Dropped
        } else {
            Self::Final
        }
    }

    fn of_program(reason: &str, standby: bool) -> Self {
        // `could not import the requested snapshot`: its session was ended.
        const SNAPSHOT: [&str; 2] = ["could not import", "snapshot \""];
        const DROPPED: [&str; 5] = [
            "could not open relation with OID",
            "cache lookup failed for",
            "returned no data",
            "returned 0 rows",
            "appears to be empty",
        ];
        let has = |words: &[&str]| words.iter().any(|words| reason.contains(words));
        let is_unknown_name = reason.contains("relation \"") || reason.contains("schema \"");
        if standby && (is_conflict(reason) || has(&SNAPSHOT)) {
            Self::Conflict
        } else if has(&DROPPED) || is_unknown_name && reason.contains("does not exist") {
            Self::Dropped
        } else {
            Self::Final
        }
    }
}

/// Both for a cancelled statement and for a terminated connection (SQLSTATE 40001).
pub(super) fn is_conflict(words: &str) -> bool {
    words.contains("due to conflict with recovery")
}

fn has_code(error: &PostgresError, codes: &[&str]) -> bool {
    let (PostgresError::Connect { error, .. } | PostgresError::Query { error, .. }) = error else {
        return false;
    };
    error
        .code()
        .is_some_and(|code| codes.contains(&code.code()))
}

/// What to do after an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Again {
        after: Duration,
    },
    /// The same, from the primary.
    FromPrimary,
    GiveUp,
}

/// The attempts at one database so far.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
    pub conflicts: u32,
    drops: u32,
}

impl Attempts {
    /// Decides after a `failure`, with `left` of the time for the whole set; after `most` conflicts the primary's turn comes.
    pub(super) fn decide(&mut self, failure: Failure, most: u32, left: Duration) -> Next {
        self.failed += 1;
        match failure {
            Failure::Final => return Next::GiveUp,
            Failure::Dropped => {
                self.drops += 1;
                if self.drops >= DROPS {
                    return Next::GiveUp;
                }
            }
            Failure::Conflict => {
                self.conflicts += 1;
                if self.conflicts >= most {
                    return Next::FromPrimary;
                }
            }
            Failure::Locked => {}
        }
        let after = pause(self.failed);
        if after < left {
            Next::Again { after }
        } else {
            Next::GiveUp
        }
    }
}

/// The pause after so many attempts: 1 s, then twice as long each time, at most a minute.
fn pause(failed: u32) -> Duration {
    Duration::from_secs(1 << failed.saturating_sub(1).min(6)).min(Duration::from_mins(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn what_pg_dump_says_tells_whether_another_attempt_may_succeed() {
        for (reason, standby, failure) in [
            (
                "Dumping the contents of table \"t\" failed: PQgetResult() failed.; Error message from server: ERROR:  canceling statement due to conflict with recovery",
                true,
                Failure::Conflict,
            ),
            (
                "Dumping the contents of table \"t\" failed: PQgetResult() failed.; Error message from server: FATAL:  terminating connection due to conflict with recovery",
                true,
                Failure::Conflict,
            ),
            (
                "query failed: ERROR:  could not import the requested snapshot",
                true,
                Failure::Conflict,
            ),
            (
                "query failed: ERROR:  could not import the requested snapshot",
                false,
                Failure::Final,
            ),
            (
                "query failed: ERROR:  relation \"public.t\" does not exist",
                false,
                Failure::Dropped,
            ),
            (
                "query failed: ERROR:  could not open relation with OID 16384",
                false,
                Failure::Dropped,
            ),
            (
                "Dumping the contents of table \"t\" failed: PQgetResult() failed.; Error message from server: FATAL:  terminating connection due to administrator command",
                true,
                Failure::Final,
            ),
            (
                "query failed: ERROR:  permission denied for table t",
                true,
                Failure::Final,
            ),
            (
                "query failed: ERROR:  role \"x\" does not exist",
                true,
                Failure::Final,
            ),
        ] {
            assert_eq!(Failure::of_program(reason, standby), failure, "{reason}");
        }
        let what = || DumpError::TableLocks {
            what: "database \"x\"".to_owned(),
            holders: String::new(),
        };
        assert_eq!(Failure::of(&what(), false), Failure::Locked);
        let deadline = DumpError::Deadline { after: HOUR };
        assert_eq!(Failure::of(&deadline, true), Failure::Final);
    }

    #[test]
    fn a_lock_is_waited_for_until_the_time_is_up() {
        let mut attempts = Attempts::default();
        let pauses: Vec<u64> = (0..8)
            .map(|_| match attempts.decide(Failure::Locked, 3, HOUR) {
                Next::Again { after } => after.as_secs(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        let minute = Duration::from_mins(1);
        assert_eq!(attempts.decide(Failure::Locked, 3, minute), Next::GiveUp);
    }

    #[test]
    fn the_third_conflict_turns_to_the_primary() {
        let mut attempts = Attempts::default();
        for _ in 0..2 {
            let next = attempts.decide(Failure::Conflict, 3, HOUR);
            assert!(matches!(next, Next::Again { .. }), "{next:?}");
        }
        assert_eq!(
            attempts.decide(Failure::Conflict, 3, HOUR),
            Next::FromPrimary
        );
        let mut first = Attempts::default();
        assert_eq!(first.decide(Failure::Conflict, 0, HOUR), Next::FromPrimary);
    }

    #[test]
    fn dropped_objects_end_the_attempts_at_last() {
        let mut attempts = Attempts::default();
        for _ in 0..2 {
            let next = attempts.decide(Failure::Dropped, 3, HOUR);
            assert!(matches!(next, Next::Again { .. }), "{next:?}");
        }
        assert_eq!(attempts.decide(Failure::Dropped, 3, HOUR), Next::GiveUp);
        let mut final_one = Attempts::default();
        assert_eq!(final_one.decide(Failure::Final, 3, HOUR), Next::GiveUp);
    }
}
