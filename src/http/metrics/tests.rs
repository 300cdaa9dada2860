//! Scrapes of clusters made by hand.

use std::collections::{BTreeMap, BTreeSet};

use super::encode::{Format, encode};
use super::samples::{Samples, Scrape};
use super::table::families;
use crate::cluster::tests::{NOW, at, evidence, known, view};
use crate::cluster::{ArchiveExtent, Evidence, Knowledge, RestoreTested, Standing, View, evaluate};
use crate::http::{JobState, LastSuccess, Observed, Plots, Pushes, Requests, WaitingWal};
use crate::model::{AlertMarks, Finding, Scope, Severity, Verdict};

pub(in crate::http) fn observed() -> Observed {
    let node = || Scope::Node("db1".to_owned());
    let mut slow = Finding::new("lag", node(), "db2", Verdict::Warning("w".to_owned()));
    slow.value = Some(7.0);
    let ended = [("ok", 3), ("warning", 0), ("unknown", 0), ("critical", 1)];
    let success = LastSuccess {
        finished_at: at(NOW - 100),
        elapsed_secs: 4.5,
        node: "db2".to_owned(),
        bytes: Some(1775),
    };
    Observed {
        at: Some(at(NOW - 2)),
        checked_at: Some(at(NOW - 3)),
        findings: vec![
            (Finding::new("lag", node(), "db3", Verdict::Ok), at(NOW)),
            (slow, at(NOW)),
        ],
        jobs: vec![JobState {
            name: "dump",
            schedule: "0 2 * * *".to_owned(),
            runs_on: "replica",
            is_here: true,
            running_since: None,
            last_run: None,
            last_success: Some(success),
            next_run: Some(at(NOW + 100)),
            ended,
        }],
        waiting_wal: Some(WaitingWal {
            files: 2,
            bytes: 32 << 20,
            oldest: Some(at(NOW - 9)),
            full_in: Some(jiff::SignedDuration::from_hours(5)),
            free_bytes: 1 << 30,
        }),
        pushes: Pushes {
            classes: vec![(0.1, 4), (f64::INFINITY, 1)],
            total_secs: 3.5,
            refused: 1,
        },
        requests: ["get", "put"]
            .map(|operation| Requests {
                operation,
                job: "dump",
                requests: 4,
                sent_bytes: 10,
                received_bytes: 1000,
            })
            .to_vec(),
        services: vec![("s3", true), ("redis", false)],
        outbox: Some(0),
        plots: Plots::default(),
    }
}

pub(in crate::http) fn all_known() -> Knowledge {
    let tested = RestoreTested {
        at: at(NOW - 40),
        node: "db2".to_owned(),
        backup: "base_1".to_owned(),
        passed: true,
        proves: true,
        lsn: None,
        rto_secs: Some(2.14),
        rpo_secs: Some(0.0),
        phases: vec![("fetch".to_owned(), 1.0)],
        verifications: vec![("ok".to_owned(), 9)],
    };
    let extent = ArchiveExtent {
        from: Some(at(NOW - 5000)),
        backups: vec![("complete", 2)],
        wal_segments: 12,
        tests: vec![tested],
        ..ArchiveExtent::default()
    };
    let mut known = known();
    known.evidence = Some(Evidence {
        extent: Some(extent),
        ..evidence()
    });
    known.alerts.push(Standing {
        key: "lag/db1/db2".to_owned(),
        severity: Severity::Warning,
        since: at(NOW - 60),
        reason: "w".to_owned(),
        runbook: None,
        marks: AlertMarks::default(),
    });
    known
}

fn scraped(view: &View, known: &Knowledge, observed: &Observed, format: Format) -> String {
    let status = evaluate("main", "db1", view, known, at(NOW));
    let samples = Samples::of(&Scrape {
        cluster: "main",
        hostname: "db1",
        view,
        known,
        status: &status,
        observed,
        now: at(NOW),
    });
    encode(samples, format)
}

/// Each series with its value.
fn series(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).collect()
}

#[test]
fn a_scrape_of_a_cluster_that_is_known_has_each_family() {
    let text = scraped(&view(false, 1), &all_known(), &observed(), Format::Text);
    let shown = series(&text);
    let names: BTreeSet<&str> = shown
        .keys()
        .map(|one| one.split('{').next().unwrap())
        .collect();
    for family in families() {
        let name = family.name();
        let found = names
            .iter()
            .any(|one| one.trim_end_matches("_bucket") == name);
        // A replica's, and this judge leads.
        assert!(found, "{name} has no sample in\n{text}");
    }
    for (one, value) in [
        ("xdb_cluster_verdict{verdict=\"ok\"}", "0"),
        ("xdb_node_role{role=\"primary\"}", "1"),
        ("xdb_node_role{role=\"replica\"}", "0"),
        ("xdb_rpo_seconds", "0.0"),
        ("xdb_rpo_objective_seconds{severity=\"critical\"}", "900.0"),
        ("xdb_recoverable_to_age_seconds", "8.0"),
        ("xdb_replication_lag_bytes{node=\"db2\"}", "100"),
        ("xdb_check_verdict{check=\"lag\",verdict=\"warning\"}", "1"),
        ("xdb_check_value{check=\"lag\"}", "7.0"),
        ("xdb_alerts{severity=\"warning\"}", "1"),
        (
            "xdb_check_alerts{check=\"lag\",severity=\"warning\",silenced=\"false\"}",
            "1",
        ),
        ("xdb_own_work_age_seconds", "2.0"),
        ("xdb_checks_age_seconds", "3.0"),
        ("xdb_archive_push_seconds_bucket{le=\"+Inf\"}", "5"),
        ("xdb_archive_push_seconds_count", "5"),
        (
            "xdb_job_runs_total{job_name=\"dump\",verdict=\"critical\"}",
            "1",
        ),
        (
            "xdb_s3_received_bytes_total{operation=\"get\",job_name=\"dump\"}",
            "1000",
        ),
    ] {
        assert_eq!(shown.get(one), Some(&value), "{one}");
    }
    assert!(shown.len() < 150, "{} series", shown.len());
}

#[test]
fn raised_alerts_are_counted_by_check_and_severity_and_whether_they_are_to_be_heard() {
    let mut known = all_known();
    let raised = |key: &str, severity, inhibited: bool| Standing {
        key: key.to_owned(),
        severity,
        marks: AlertMarks {
            inhibited_by: inhibited.then(|| "node/cluster/db1".to_owned()),
            ..AlertMarks::default()
        },
        ..all_known().alerts.remove(0)
    };
    known.alerts.extend([
        raised("lag/db1/db3", Severity::Warning, false),
        raised("dump/db1/", Severity::Unknown, false),
        raised("archiver/db1/", Severity::Critical, true),
        raised("no key", Severity::Critical, false),
    ]);
    let text = scraped(&view(false, 1), &known, &observed(), Format::Text);
    let found: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("xdb_check_alerts"))
        .collect();
    assert_eq!(
        found,
        [
            "{check=\"archiver\",severity=\"critical\",silenced=\"true\"} 1",
            "{check=\"dump\",severity=\"unknown\",silenced=\"false\"} 1",
            "{check=\"lag\",severity=\"warning\",silenced=\"false\"} 2",
        ]
    );
}

#[test]
fn the_evidence_ages_while_s3_refuses_each_look() {
    let mut known = all_known();
    let evidence = known.evidence.as_mut().unwrap();
    evidence.at = at(NOW);
    evidence.base_backup_read_at = Some(at(NOW - 3000));
    evidence.base_backup_error = Some("S3 refuses".to_owned());
    let text = scraped(&view(false, 1), &known, &observed(), Format::Text);
    assert_eq!(
        series(&text).get("xdb_evidence_age_seconds"),
        Some(&"3000.0")
    );
}

#[test]
fn counters_begin_at_zero_and_a_job_of_another_node_has_none() {
    let mut observed = observed();
    let theirs = JobState {
        name: "prune",
        is_here: false,
        next_run: None,
        ended: ["ok", "warning", "unknown", "critical"].map(|word| (word, 0)),
        ..observed.jobs[0].clone()
    };
    observed.jobs.push(theirs);
    observed.jobs[0].ended = ["ok", "warning", "unknown", "critical"].map(|word| (word, 0));
    observed.pushes.classes = vec![(0.1, 0), (f64::INFINITY, 0)];
    observed.pushes.refused = 0;
    observed.requests[0].received_bytes = 0;
    let text = scraped(&view(false, 1), &all_known(), &observed, Format::Text);
    let shown = series(&text);
    for (one, value) in [
        (
            "xdb_job_runs_total{job_name=\"dump\",verdict=\"critical\"}",
            Some("0"),
        ),
        ("xdb_archive_push_seconds_count", Some("0")),
        ("xdb_archive_push_refused_total", Some("0")),
        (
            "xdb_s3_received_bytes_total{operation=\"get\",job_name=\"dump\"}",
            Some("0"),
        ),
        (
            "xdb_s3_sent_bytes_total{operation=\"get\",job_name=\"dump\"}",
            None,
        ),
        (
            "xdb_job_next_run_timestamp_seconds{job_name=\"prune\"}",
            None,
        ),
        ("xdb_job_running{job_name=\"prune\"}", None),
        (
            "xdb_job_runs_total{job_name=\"prune\",verdict=\"ok\"}",
            None,
        ),
    ] {
        assert_eq!(shown.get(one).copied(), value, "{one}");
    }
}

#[test]
fn what_is_not_known_has_no_sample() {
    let (view, known) = (View::default(), Knowledge::default());
    let text = scraped(&view, &known, &Observed::default(), Format::Text);
    let shown = series(&text);
    for one in shown.keys() {
        let known = [
            "build_info",
            "node_info",
            "cluster_verdict",
            "node_role",
            "node_serves",
            // That there is no primary is known of nothing.
            "check_verdict",
            "alerts",
        ];
        let stem = one.split('{').next().unwrap().trim_start_matches("xdb_");
        assert!(known.contains(&stem), "{one}");
    }
    assert_eq!(shown.get("xdb_node_role{role=\"unknown\"}"), Some(&"1"));
    assert_eq!(shown.get("xdb_cluster_verdict{verdict=\"ok\"}"), Some(&"0"));
}

#[test]
fn both_formats_name_the_same_series() {
    let scraped = |format| scraped(&view(false, 1), &all_known(), &observed(), format);
    let (text, open) = (scraped(Format::Text), scraped(Format::OpenMetrics));
    assert_eq!(series(&text), series(&open));
    assert!(text.contains("\n# TYPE xdb_job_runs_total counter\n"));
    assert!(text.contains("# TYPE xdb_build_info gauge\n"));
    assert!(!text.contains("# EOF") && !text.contains("# UNIT"));
    assert!(open.contains("\n# TYPE xdb_job_runs counter\n"));
    assert!(open.contains("# TYPE xdb_build info\n"));
    assert!(open.ends_with("\n# EOF\n"));
}
