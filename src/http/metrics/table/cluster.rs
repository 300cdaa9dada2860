//! The nodes, what a loss of the primary costs, checks and alerts.

use crate::http::metrics::family::{Family, FamilyType, Unit, family, gauge};

pub(super) const NODE: &[Family] = &[
    family(
        "build",
        Unit::None,
        FamilyType::Info,
        &["version"],
        "The version of xdb",
    ),
    family(
        "node",
        Unit::None,
        FamilyType::Info,
        &["cluster", "node"],
        "The cluster's name and this node's host name",
    ),
    gauge(
        "cluster_verdict",
        Unit::None,
        &["verdict"],
        "1 for the verdict on the cluster as this node judges it (ok, warning, unknown, critical), 0 for the others",
    ),
    gauge(
        "node_role",
        Unit::None,
        &["role"],
        "1 for this server's role (primary, replica, superseded, unknown), 0 for the others",
    ),
    gauge(
        "node_serves",
        Unit::None,
        &["endpoint"],
        "1 where the HTTP endpoint (primary, replica) answers 200, 0 where it answers 503",
    ),
    gauge(
        "node_timeline",
        Unit::None,
        &[],
        "The timeline of this server",
    ),
    gauge(
        "node_highest_timeline",
        Unit::None,
        &[],
        "The highest timeline of this cluster that is proven to this node; above xdb_node_timeline the server is superseded",
    ),
    gauge(
        "peer_heard_timestamp",
        Unit::Seconds,
        &["peer"],
        "When this node last heard of the peer",
    ),
    gauge(
        "service_up",
        Unit::None,
        &["service"],
        "1 where the service (s3, redis, state-store) answered this node's last request, 0 where it did not",
    ),
];

pub(super) const LOSS: &[Family] = &[
    gauge(
        "recoverable_from_timestamp",
        Unit::Seconds,
        &[],
        "When the oldest base backup that can be restored finished: no earlier time can be restored",
    ),
    gauge(
        "recoverable_to_timestamp",
        Unit::Seconds,
        &[],
        "When the last WAL segment that a restore reaches was stored, by the clock of S3",
    ),
    gauge(
        "recoverable_to_age",
        Unit::Seconds,
        &[],
        "The age of xdb_recoverable_to_timestamp_seconds. An idle primary archives nothing, so this grows without a loss",
    ),
    gauge(
        "rpo",
        Unit::Seconds,
        &[],
        "The live RPO: the age of the oldest commit that the archive does not hold; 0 if it holds all of them",
    ),
    gauge(
        "rpo_upper_bound",
        Unit::None,
        &[],
        "1 if xdb_rpo_seconds is an upper bound, 0 if it is exact",
    ),
    gauge(
        "rpo_objective",
        Unit::Seconds,
        &["severity"],
        "The RPO from which on archive-rpo is an alert (warning, critical)",
    ),
    gauge(
        "rto_forecast",
        Unit::Seconds,
        &[],
        "How long a restore from now takes, by the restore tests",
    ),
    gauge(
        "rto_forecast_low",
        Unit::Seconds,
        &[],
        "The lower end of the forecast's range",
    ),
    gauge(
        "rto_forecast_high",
        Unit::Seconds,
        &[],
        "The upper end of the forecast's range",
    ),
    gauge(
        "rto_objective",
        Unit::Seconds,
        &[],
        "The time that a restore may take (restore_test.rto_objective)",
    ),
    gauge(
        "evidence_timestamp",
        Unit::Seconds,
        &[],
        "When the look at the buckets began that last read the base backups, which these metrics rest on",
    ),
    gauge(
        "evidence_age",
        Unit::Seconds,
        &[],
        "The age of xdb_evidence_timestamp_seconds",
    ),
    gauge(
        "evidence_read",
        Unit::None,
        &["part"],
        "1 if the last look could read the part (base-backup, dump, proof), 0 if it could not; then the part is of an earlier look",
    ),
    gauge(
        "own_work_timestamp",
        Unit::Seconds,
        &[],
        "When the daemon last looked at this node's own work: jobs, waiting WAL, pushes, requests, services, findings of checks",
    ),
    gauge(
        "own_work_age",
        Unit::Seconds,
        &[],
        "The age of xdb_own_work_timestamp_seconds",
    ),
];

pub(super) const REPLICATION: &[Family] = &[
    gauge(
        "replication_lag",
        Unit::Bytes,
        &["node"],
        "How far the replica's replay is behind the primary",
    ),
    gauge(
        "replication_lag",
        Unit::Seconds,
        &["node"],
        "Since when the primary has been ahead of what the replica has replayed",
    ),
];

pub(super) const CHECKS: &[Family] = &[
    gauge(
        "check_verdict",
        Unit::None,
        &["check", "verdict"],
        "1 for the worst verdict of the check on this node or on the cluster (ok, warning, unknown, critical); the others have no series. It holds from the first finding on, before the check has lasted long enough for an alert",
    ),
    gauge(
        "check_value",
        Unit::None,
        &["check"],
        "The value behind that verdict, in the check's own unit",
    ),
    gauge(
        "checks_timestamp",
        Unit::Seconds,
        &[],
        "When this node last judged: the older of its last run of the checks and of its last look at what it depends on. Its alerts are as old",
    ),
    gauge(
        "checks_age",
        Unit::Seconds,
        &[],
        "The age of xdb_checks_timestamp_seconds",
    ),
    gauge(
        "check_alerts",
        Unit::None,
        &["check", "severity", "silenced"],
        "Alerts of the check, or of the job of this name, that this node has raised; only where there are any. silenced is true for those that are silenced, acknowledged, or follow from another alert",
    ),
    gauge(
        "alerts",
        Unit::None,
        &["severity"],
        "Alerts of this node that are raised (critical, warning, unknown)",
    ),
    gauge(
        "alert_outbox_events",
        Unit::None,
        &[],
        "Events of alerts that wait on this node for Redis",
    ),
];
