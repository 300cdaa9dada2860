//! The jobs and their requests to S3.

use crate::http::metrics::family::{Family, Unit, counter, gauge};

pub(super) const JOBS: &[Family] = &[
    gauge(
        "job_last_success_timestamp",
        Unit::Seconds,
        &["job_name"],
        "When the job last succeeded, on any node",
    ),
    gauge(
        "job_last_success_duration",
        Unit::Seconds,
        &["job_name"],
        "How long that run took",
    ),
    gauge(
        "job_next_run_timestamp",
        Unit::Seconds,
        &["job_name"],
        "When the job runs next; only on the node that runs it now",
    ),
    gauge(
        "job_running",
        Unit::None,
        &["job_name"],
        "1 while the daemon of this node runs the job, 0 while it does not; only for jobs of this node",
    ),
    counter(
        "job_runs",
        Unit::None,
        &["job_name", "verdict"],
        "Runs of the job by this daemon that ended in the verdict; on the node that runs it now, and where it has run",
    ),
];

pub(super) const S3: &[Family] = &[
    counter(
        "s3_requests",
        Unit::None,
        &["operation", "job_name"],
        "Requests of this daemon (get, head, list, put, delete; retries included) by the job they were made for, or other; each pair from its first request on. WAL-G's own requests are not among them",
    ),
    counter(
        "s3_sent",
        Unit::Bytes,
        &["operation", "job_name"],
        "Bytes that these requests sent (put)",
    ),
    counter(
        "s3_received",
        Unit::Bytes,
        &["operation", "job_name"],
        "Bytes that their answers announced (get, list)",
    ),
];
