//! What a check is.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::values::shown;
use super::{Limits, Measure, Oldest, ShowCheck, SqlCheck, Worse};

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
    /// The operator's file; `None` for a packaged one.
    pub origin: Option<PathBuf>,
    /// What it watches, in a few words.
    pub title: String,
    pub kind: Kind,
    /// Where it runs.
    pub role: Role,
    /// How long a finding must last before it is worth an alert; zero is at once.
    pub hold: Duration,
    /// It is made no more often than this; zero is with every run of the checks.
    pub interval: Duration,
    /// The runbook's file or address; `None` where a check of the operator's own names none.
    pub runbook: Option<String>,
}

/// How a check samples and judges.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Sql(SqlCheck),
    PgBouncer(ShowCheck),
    /// A number that xdb takes itself.
    Measured {
        source: BuiltInMeasure,
        measure: Measure,
    },
    /// `pg_stat_archiver`; the limits count files that wait to be archived.
    Archiver {
        limits: Limits,
    },
    ReplicationLag {
        limits: LagLimits,
        /// Standbys, by application name, that replay late on purpose.
        delayed: Vec<String>,
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
    /// An operator's query may hold anything: what it leaves in its session is taken back.
    pub(super) fn is_trusted(&self) -> bool {
        self.origin.is_none()
    }

    /// It cannot be made while this node's PostgreSQL is down.
    pub(crate) fn asks_postgresql(&self) -> bool {
        let asks = matches!(
            self.kind,
            Kind::Sql(_)
                | Kind::Archiver { .. }
                | Kind::ReplicationLag { .. }
                | Kind::Measured {
                    source: BuiltInMeasure::Certificate,
                    ..
                }
        );
        asks || self.role != Role::Any
    }

    /// The operator's file, or `packaged`.
    pub(crate) fn origin(&self) -> String {
        let file = self.origin.as_ref();
        file.map_or_else(|| "packaged".to_owned(), |file| file.display().to_string())
    }

    /// From which values on it warns and is critical, in words; `-` where it judges by other means.
    pub(crate) fn thresholds(&self) -> (String, String) {
        if let Kind::ReplicationLag { limits, .. } = &self.kind {
            let both = |bytes: Option<f64>, secs: Option<f64>| {
                let bytes = bytes.map(|bytes| shown(bytes, "B"));
                let both: Vec<_> = bytes
                    .into_iter()
                    .chain(secs.map(|it| shown(it, "s")))
                    .collect();
                both.join(" or ")
            };
            let LagLimits { bytes, secs } = limits;
            return (
                both(bytes.warning, secs.warning),
                both(bytes.critical, secs.critical),
            );
        }
        let Some((limits, unit)) = self.kind.limits() else {
            return ("-".to_owned(), "-".to_owned());
        };
        let sign = match limits.worse {
            Worse::Above => ">=",
            Worse::Below => "<=",
        };
        let words = |limit: Option<f64>| {
            limit.map_or_else(
                || "-".to_owned(),
                |limit| format!("{sign} {}", shown(limit, unit)),
            )
        };
        (words(limits.warning), words(limits.critical))
    }

    /// How long a finding must last, in words.
    pub(crate) fn held(&self) -> String {
        shown(self.hold.as_secs_f64(), "s")
    }

    /// How often it is made, in words.
    pub(crate) fn every(&self) -> String {
        match self.interval.is_zero() {
            true => "run".to_owned(),
            false => shown(self.interval.as_secs_f64(), "s"),
        }
    }

    /// A finding of it means the same on a primary and on a replica.
    pub(crate) fn is_alike_in_both_roles(&self) -> bool {
        let is_of_role = matches!(
            self.kind,
            Kind::Archiver { .. } | Kind::ReplicationLag { .. }
        );
        self.role == Role::Any && !is_of_role
    }
}

impl Kind {
    /// One verdict for all nodes: an alert of it comes from the node that speaks for the cluster.
    pub(crate) fn is_about_cluster(&self) -> bool {
        matches!(self, Self::Age { .. })
    }

    /// The word for it in a file.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Sql(_) => "sql",
            Self::PgBouncer(_) => "pgbouncer",
            Self::Measured { source, .. } => source.word(),
            Self::Archiver { .. } => "archiver",
            Self::ReplicationLag { .. } => "replication_lag",
            Self::Age { .. } => "age",
            Self::WalVolume { .. } => "wal_volume",
            Self::Program { .. } => "program",
            Self::PostgresqlUp => "postgresql_up",
            Self::PgBouncerUp => "pgbouncer_up",
            Self::Configuration => "configuration",
        }
    }

    /// The limits of its values and their unit; `None` where it judges by other means.
    pub(crate) fn limits(&self) -> Option<(&Limits, &str)> {
        match self {
            Self::Sql(SqlCheck { measure, .. })
            | Self::PgBouncer(ShowCheck { measure, .. })
            | Self::Measured { measure, .. } => Some((&measure.limits, &measure.unit)),
            Self::Archiver { limits } => Some((limits, "files")),
            Self::Age { limits, .. } | Self::WalVolume { limits } => Some((limits, "s")),
            Self::ReplicationLag { .. }
            | Self::Program { .. }
            | Self::PostgresqlUp
            | Self::PgBouncerUp
            | Self::Configuration => None,
        }
    }

    /// The daemon makes it every two seconds, whatever `schedule.checks` says: nothing works without these two.
    pub(crate) fn is_vital(&self) -> bool {
        matches!(self, Self::PostgresqlUp | Self::PgBouncerUp)
    }
}

/// What xdb measures itself, with limits that a file sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BuiltInMeasure {
    /// How full each volume is, in percent.
    Disk,
    /// Seconds until a volume of the server is full.
    DiskForecast,
    /// Seconds until a certificate ends.
    Certificate,
    /// By which factor the last run of a job differs from those before.
    Anomaly { job: String },
    /// Seconds between the clocks of the nodes.
    ClockSkew,
    /// How many settings of PostgreSQL differ between the nodes.
    SettingsDrift,
    /// How many programs have different versions on the nodes.
    VersionDrift,
    /// 1 where a replica is on another timeline than its primary.
    Timeline,
    /// 1 for a day after PgBouncer was exchanged for another release.
    PgBouncerVersion,
    /// 1 for each backend of HAProxy that leads to a node of the other role.
    HaproxyRoutes,
}

impl BuiltInMeasure {
    fn word(&self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::DiskForecast => "disk_forecast",
            Self::Certificate => "certificate",
            Self::Anomaly { .. } => "anomaly",
            Self::ClockSkew => "clock_skew",
            Self::SettingsDrift => "settings_drift",
            Self::VersionDrift => "version_drift",
            Self::Timeline => "timeline",
            Self::PgBouncerVersion => "pgbouncer_version",
            Self::HaproxyRoutes => "haproxy_routes",
        }
    }
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
