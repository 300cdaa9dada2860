//! What a check is.

use std::fmt;
use std::time::Duration;

use super::Oldest;

/// From which lag on it is a warning, and from which critical.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct LagLimits {
    pub bytes: Limits,
    pub secs: Limits,
}

/// One check, as its TOML file says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Definition {
    /// The file's stem.
    pub name: String,
    /// What it watches, in a few words.
    pub title: String,
    pub kind: Kind,
    /// Where it runs.
    pub role: Role,
    /// How long a finding must last before it is worth an alert; zero is at once.
    pub hold: Duration,
    /// The runbook's file or address; `None` where a check of the operator's own names none.
    pub runbook: Option<String>,
}

/// How a check samples and judges.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    /// A query; each row is one object: column `value`, and `object` where there is more than one.
    Sql {
        query: String,
        unit: String,
        limits: Limits,
    },
    PgBouncer {
        metric: Metric,
        limits: Limits,
    },
    /// `pg_stat_archiver`; the limits count files that wait to be archived.
    Archiver {
        limits: Limits,
    },
    ReplicationLag {
        limits: LagLimits,
    },
    /// How long ago a job last succeeded on any node, as the bucket shows; the limits are in seconds.
    Age {
        job: String,
        limits: Limits,
    },
    /// How long the volume of `pg_wal` lasts while archiving stands still; the limits are in seconds, and less is worse.
    WalVolume {
        limits: Limits,
    },
    /// `archive.program`: there, and not older than this.
    Program {
        oldest: Vec<Oldest>,
    },
    /// "Could not connect" is critical here and in [`Kind::PgBouncerUp`], and nowhere else.
    PostgresqlUp,
    /// A login through this node's PgBouncer.
    PgBouncerUp,
    /// What is wrong in xdb's own files, and what the daemon does without because of it.
    Configuration,
}

impl Definition {
    /// A finding of it means the same on a primary and on a replica.
    pub(crate) fn is_alike_in_both_roles(&self) -> bool {
        let is_of_role = matches!(
            self.kind,
            Kind::Archiver { .. } | Kind::ReplicationLag { .. }
        );
        self.role == Role::Any && !is_of_role
    }
}

impl Definition {
    /// It cannot be made while this node's PostgreSQL is down.
    pub(crate) fn asks_postgresql(&self) -> bool {
        let asks = matches!(
            self.kind,
            Kind::Sql { .. } | Kind::Archiver { .. } | Kind::ReplicationLag { .. }
        );
        asks || self.role != Role::Any
    }
}

impl Kind {
    /// One verdict for all nodes: an alert of it comes from the node that speaks for the cluster.
    pub(crate) fn is_about_cluster(&self) -> bool {
        matches!(self, Self::Age { .. })
    }

    /// The daemon makes it every two seconds, whatever `schedule.checks` says: nothing works without these two.
    pub(crate) fn is_vital(&self) -> bool {
        matches!(self, Self::PostgresqlUp | Self::PgBouncerUp)
    }
}

/// What is read from PgBouncer's console.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    /// `cl_waiting` of each pool.
    ClientsWaiting,
    /// Used of possible: clients, each pool's servers, each limited database's servers; in percent.
    Saturation,
}

/// Where a check runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    Replica,
    Any,
}

impl Role {
    pub(crate) fn is(self, in_recovery: bool) -> bool {
        match self {
            Self::Primary => !in_recovery,
            Self::Replica => in_recovery,
            Self::Any => true,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Any => "any",
        })
    }
}

/// From which value on it is a warning, and from which critical; `None` is never.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Limits {
    pub warning: Option<f64>,
    pub critical: Option<f64>,
}
