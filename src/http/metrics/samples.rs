//! The samples of one scrape, from what the daemon knows. Pure.
//!
//! Where nothing is known there is no sample: a 0 would be a claim.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use jiff::Timestamp;

use super::family::Family;
use super::table::families;
use crate::cluster::{Knowledge, PAGED, Status, View, judge_primary, judge_replica};
use crate::http::observed::Observed;
use crate::model::{AlertKey, Finding, Scope, Severity};

/// What a scrape is made from.
pub(super) struct Scrape<'a> {
    pub cluster: &'a str,
    pub hostname: &'a str,
    pub view: &'a View,
    pub known: &'a Knowledge,
    /// The verdict at `now`.
    pub status: &'a Status,
    pub observed: &'a Observed,
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub labels: Vec<(&'static str, String)>,
    pub value: Reading,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reading {
    Number(f64),
    Count(u64),
    /// Upper ends of classes with the number in each, and the sum.
    Classes(Vec<(f64, u64)>, f64),
}

/// All samples, by family in the order of the table; a family without any is left out.
#[derive(Debug, Default)]
pub(super) struct Samples(Vec<(&'static Family, Vec<Sample>)>);

impl Samples {
    pub(super) fn of(scrape: &Scrape<'_>) -> Self {
        let mut samples = Self(families().map(|family| (family, Vec::new())).collect());
        samples.node(scrape);
        samples.point("own_work", scrape.observed.at, scrape.now);
        samples.headline(scrape);
        samples.restore_tests(scrape);
        samples.archive(scrape);
        samples.checks(scrape);
        samples.jobs(scrape.observed);
        samples.requests(scrape.observed);
        samples.0.retain(|(_, of)| !of.is_empty());
        samples
    }

    pub(super) fn families(&self) -> &[(&'static Family, Vec<Sample>)] {
        &self.0
    }

    fn node(&mut self, scrape: &Scrape<'_>) {
        let (view, status) = (scrape.view, scrape.status);
        self.add("xdb_build_info", &[env!("CARGO_PKG_VERSION")], true);
        self.add("xdb_node_info", &[scrape.cluster, scrape.hostname], true);
        self.states("xdb_cluster_verdict", &[], &VERDICTS, &status.verdict);
        let own = status.nodes.iter();
        let own = own.filter(|line| line.hostname == scrape.hostname);
        let role = own.filter_map(|line| line.role.as_deref()).next();
        let roles = ["primary", "replica", "superseded", "unknown"];
        self.states("xdb_node_role", &[], &roles, role.unwrap_or("unknown"));
        for (endpoint, served) in [
            ("primary", judge_primary(view, scrape.now).is_ok()),
            ("replica", judge_replica(view, scrape.now).is_ok()),
        ] {
            self.add("xdb_node_serves", &[endpoint], served);
        }
        let timeline = view.sample.map(|sample| sample.timeline.0);
        self.add("xdb_node_timeline", &[], timeline);
        let highest = view.highest.map(|timeline| timeline.0);
        self.add("xdb_node_highest_timeline", &[], highest);
        for peer in &scrape.known.peers {
            let heard = peer.last_answer.as_ref().map(|(at, _)| *at);
            self.add("xdb_peer_heard_timestamp_seconds", &[peer.name()], heard);
        }
        for (service, up) in &scrape.observed.services {
            self.add("xdb_service_up", &[service], *up);
        }
        for line in &status.nodes {
            let of = [line.hostname.as_str()];
            self.add("xdb_replication_lag_bytes", &of, line.lag_bytes);
            self.add("xdb_replication_lag_seconds", &of, line.lag_secs);
        }
    }

    fn headline(&mut self, scrape: &Scrape<'_>) {
        let (status, now) = (scrape.status, scrape.now);
        let (rpo, rto) = (&status.rpo, &status.rto);
        self.add("xdb_rpo_seconds", &[], rpo.secs);
        let bound = rpo.secs.map(|_| rpo.at_most);
        self.add("xdb_rpo_upper_bound", &[], bound);
        for (severity, secs) in [
            ("warning", rpo.warning_secs),
            ("critical", rpo.critical_secs),
        ] {
            self.add("xdb_rpo_objective_seconds", &[severity], secs);
        }
        self.add("xdb_rto_forecast_seconds", &[], rto.secs);
        self.add("xdb_rto_forecast_low_seconds", &[], rto.low_secs);
        self.add("xdb_rto_forecast_high_seconds", &[], rto.high_secs);
        self.add("xdb_rto_objective_seconds", &[], rto.objective_secs);
        let Some(evidence) = &status.evidence else {
            return;
        };
        // Not when they were asked: an S3 that refuses each request leaves what is known as old as it is.
        self.point("evidence", evidence.base_backup_read_at, now);
        for (part, error) in [
            ("base-backup", &evidence.base_backup_error),
            ("dump", &evidence.dump_error),
            ("proof", &evidence.proof_error),
        ] {
            self.add("xdb_evidence_read", &[part], error.is_none());
        }
        let from = evidence.extent.as_ref().and_then(|extent| extent.from);
        self.add("xdb_recoverable_from_timestamp_seconds", &[], from);
        let backup = evidence.base_backup.as_ref();
        let end = crate::cluster::archive_end(scrape.view, scrape.known);
        let end = end.filter(|_| backup.is_some_and(|backup| backup.unusable.is_none()));
        self.point("recoverable_to", end.map(|end| end.archived_at), now);
        self.point("base_backup", backup.and_then(|it| it.finished_at), now);
        self.point("dump", evidence.dump.as_ref().map(|dump| dump.at), now);
        let proof = evidence.proof.as_ref();
        self.point("proof", proof.map(|proof| proof.at), now);
        self.add(
            "xdb_proof_rto_seconds",
            &[],
            proof.and_then(|it| it.rto_secs),
        );
        self.add(
            "xdb_proof_rpo_seconds",
            &[],
            proof.and_then(|it| it.rpo_secs),
        );
        let newest = proof.and_then(|proof| proof.newest_backup_proven);
        self.add("xdb_proof_newest_backup", &[], newest);
    }

    fn restore_tests(&mut self, scrape: &Scrape<'_>) {
        let evidence = scrape.status.evidence.as_ref();
        let extent = evidence.and_then(|evidence| evidence.extent.as_ref());
        let Some(test) = extent.and_then(|extent| extent.tests.first()) else {
            return;
        };
        self.add("xdb_restore_test_passed", &[], test.passed);
        for (phase, secs) in &test.phases {
            self.add("xdb_restore_test_phase_seconds", &[phase], *secs);
        }
        for (verdict, count) in &test.verifications {
            let name = "xdb_restore_test_verifications";
            self.add(name, &[verdict], *count);
        }
    }

    fn archive(&mut self, scrape: &Scrape<'_>) {
        if let Some(wal) = &scrape.observed.waiting_wal {
            self.add("xdb_archive_ready_files", &[], wal.files);
            self.add("xdb_archive_ready_bytes", &[], wal.bytes);
            let age = wal.oldest.map_or(0.0, |at| secs_since(at, scrape.now));
            self.add("xdb_archive_oldest_ready_age_seconds", &[], age);
            self.add("xdb_wal_volume_free_bytes", &[], wal.free_bytes);
            let full = wal.full_in.map(|left| left.as_secs_f64());
            self.add("xdb_wal_volume_full_seconds", &[], full);
        }
        let pushes = &scrape.observed.pushes;
        // On a primary from the first look on, with zeros: a rate needs the value before the first push.
        let has_pushed = pushes.refused > 0 || pushes.classes.iter().any(|(_, count)| *count > 0);
        if has_pushed || (scrape.view.led_last() && !pushes.classes.is_empty()) {
            let classes = Reading::Classes(pushes.classes.clone(), pushes.total_secs);
            self.add("xdb_archive_push_seconds", &[], classes);
            self.add("xdb_archive_push_refused_total", &[], pushes.refused);
        }
        let evidence = scrape.status.evidence.as_ref();
        if let Some(extent) = evidence.and_then(|evidence| evidence.extent.as_ref()) {
            self.add("xdb_archive_segments", &[], extent.wal_segments);
            let bytes = extent.backup_bytes;
            self.add("xdb_repository_bytes", &["base-backups"], bytes);
            self.add("xdb_repository_bytes", &["wal"], extent.wal_bytes);
            let shown = |(state, count): &&(&str, u64)| *count > 0 || *state == "complete";
            for (state, count) in extent.backups.iter().filter(shown) {
                self.add("xdb_base_backups", &[state], *count);
            }
        }
        let dump = scrape.observed.jobs.iter().find(|job| job.name == "dump");
        let dump = dump.and_then(|job| job.last_success.as_ref());
        self.add(
            "xdb_dump_bytes",
            &[],
            dump.and_then(|success| success.bytes),
        );
    }

    /// Of several objects the worst one counts: their names are no labels. A job's own finding is in the counts of its runs.
    fn checks(&mut self, scrape: &Scrape<'_>) {
        let rank = |verdict: &str| VERDICTS.iter().position(|word| *word == verdict);
        let is_own = |finding: &&Finding| match &finding.scope {
            Scope::Cluster => true,
            Scope::Node(hostname) => hostname == scrape.hostname,
        };
        let is_job = |check: &str| scrape.observed.jobs.iter().any(|job| job.name == check);
        let own = scrape.observed.findings.iter().map(|(finding, _)| finding);
        let judged = scrape.status.findings.iter();
        let judged = judged.filter(|finding| PAGED.contains(&finding.check.as_str()));
        let mut findings: Vec<&Finding> = own
            .chain(judged)
            .filter(is_own)
            .filter(|finding| !is_job(&finding.check))
            .collect();
        // The worst first, and of equals the one with the highest value.
        findings.sort_by(|one, other| {
            let by_check = one.check.cmp(&other.check);
            let worse = rank(other.verdict.word()).cmp(&rank(one.verdict.word()));
            let higher = other.value.unwrap_or(f64::MIN);
            let higher = higher.total_cmp(&one.value.unwrap_or(f64::MIN));
            by_check.then(worse).then(higher)
        });
        findings.dedup_by(|one, first| one.check == first.check);
        for finding in findings {
            // Of this state only the series that holds: there are many checks.
            let of = [finding.check.as_str(), finding.verdict.word()];
            self.add("xdb_check_verdict", &of, true);
            self.add("xdb_check_value", &[&finding.check], finding.value);
        }
        self.alerts(scrape);
        let outbox = scrape.observed.outbox;
        self.add("xdb_alert_outbox_events", &[], outbox);
    }

    /// What is raised: the rules of Prometheus rest on it, so that holds, silences and acknowledgements count there, too.
    fn alerts(&mut self, scrape: &Scrape<'_>) {
        let alerts = &scrape.known.alerts;
        for severity in [Severity::Critical, Severity::Warning, Severity::Unknown] {
            let count = alerts.iter().filter(|it| it.severity == severity).count();
            self.add("xdb_alerts", &[severity.word()], count);
        }
        let mut counts: BTreeMap<(String, &str, bool), u64> = BTreeMap::new();
        for alert in alerts {
            // A key that another version wrote names no check.
            let Ok(key) = AlertKey::parse(&alert.key) else {
                continue;
            };
            let of = (key.check, alert.severity.word(), !alert.marks.is_empty());
            *counts.entry(of).or_default() += 1;
        }
        for ((check, severity, is_silenced), count) in counts {
            let silenced = if is_silenced { "true" } else { "false" };
            self.add("xdb_check_alerts", &[&check, severity, silenced], count);
        }
        let checked = scrape.observed.checked_at;
        self.point("checks", checked, scrape.now);
    }

    fn jobs(&mut self, observed: &Observed) {
        for job in &observed.jobs {
            let of = [job.name];
            let success = job.last_success.as_ref();
            let name = "xdb_job_last_success_timestamp_seconds";
            self.add(name, &of, success.map(|success| success.finished_at));
            let name = "xdb_job_last_success_duration_seconds";
            self.add(name, &of, success.map(|success| success.elapsed_secs));
            let name = "xdb_job_next_run_timestamp_seconds";
            self.add(name, &of, job.next_run);
            let is_running = job.running_since.is_some();
            if job.is_here || is_running {
                self.add("xdb_job_running", &of, is_running);
            }
            // Zeros from before its first run on, as for a rate; a node that never runs it has none.
            let has_run = job.ended.iter().any(|(_, count)| *count > 0);
            for (verdict, count) in job.ended.into_iter().filter(|_| job.is_here || has_run) {
                self.add("xdb_job_runs_total", &[job.name, verdict], count);
            }
        }
    }

    fn requests(&mut self, observed: &Observed) {
        for requests in &observed.requests {
            let of = [requests.operation, requests.job];
            self.add("xdb_s3_requests_total", &of, requests.requests);
            // By what the operation can move, not by what it has moved: a counter begins at 0.
            let moves = |operations: &[&str]| operations.contains(&requests.operation);
            let sent = moves(&["put"]).then_some(requests.sent_bytes);
            let received = moves(&["get", "list"]).then_some(requests.received_bytes);
            self.add("xdb_s3_sent_bytes_total", &of, sent);
            self.add("xdb_s3_received_bytes_total", &of, received);
        }
    }

    /// A point in time, and its age.
    fn point(&mut self, stem: &str, at: Option<Timestamp>, now: Timestamp) {
        self.add(&format!("xdb_{stem}_timestamp_seconds"), &[], at);
        let age = at.map(|at| secs_since(at, now));
        self.add(&format!("xdb_{stem}_age_seconds"), &[], age);
    }

    /// One series for each of `states`; the last label is the state.
    fn states(&mut self, name: &str, labels: &[&str], states: &[&str], is: &str) {
        for state in states {
            self.add(name, &[labels, &[state]].concat(), *state == is);
        }
    }

    /// Adds a sample of the family `name`, unless `value` is none; `labels` are the values in the order of the table.
    fn add(&mut self, name: &str, labels: &[&str], value: impl Into<Maybe>) {
        let Maybe(Some(value)) = value.into() else {
            return;
        };
        let index = INDEX.get(name);
        let found = index.and_then(|index| self.0.get_mut(*index));
        let (family, samples) = found.expect("each family that is sampled is in the table");
        debug_assert_eq!(family.labels.len(), labels.len(), "{name}");
        let labels = family.labels.iter().zip(labels);
        let labels = labels.map(|(label, value)| (*label, (*value).to_owned()));
        samples.push(Sample {
            labels: labels.collect(),
            value,
        });
    }
}

/// Where in the table each name is.
static INDEX: LazyLock<HashMap<String, usize>> = LazyLock::new(|| {
    let names = families().map(Family::name);
    names.zip(0..).collect()
});

const VERDICTS: [&str; 4] = ["ok", "warning", "unknown", "critical"];

/// Not below zero: two clocks need not agree.
fn secs_since(at: Timestamp, now: Timestamp) -> f64 {
    now.duration_since(at).as_secs_f64().max(0.0)
}

/// A value, where there is one.
struct Maybe(Option<Reading>);

impl From<Reading> for Maybe {
    fn from(value: Reading) -> Self {
        Self(Some(value))
    }
}

impl From<f64> for Maybe {
    fn from(number: f64) -> Self {
        Self(Some(Reading::Number(number)))
    }
}

impl From<u64> for Maybe {
    fn from(count: u64) -> Self {
        Self(Some(Reading::Count(count)))
    }
}

impl From<u32> for Maybe {
    fn from(count: u32) -> Self {
        u64::from(count).into()
    }
}

impl From<usize> for Maybe {
    fn from(count: usize) -> Self {
        u64::try_from(count).unwrap_or(u64::MAX).into()
    }
}

impl From<bool> for Maybe {
    fn from(is: bool) -> Self {
        u64::from(is).into()
    }
}

impl From<Timestamp> for Maybe {
    fn from(at: Timestamp) -> Self {
        at.as_duration().as_secs_f64().into()
    }
}

impl<T: Into<Self>> From<Option<T>> for Maybe {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self(None), Into::into)
    }
}
