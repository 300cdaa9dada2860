//! What Prometheus and a browser get from a cluster that is well, and that each packaged rule fires on its own fault.

use std::time::Duration;

use crate::harness::{Cluster, Output, eventually};

const RULES: &str = include_str!("../../../packaging/prometheus-rules.yml");

/// The series whose names begin like that get the value, or are missing.
type Change = (&'static str, Option<&'static str>);

/// For each rule what its fault does to a scrape.
const FAULTS: &[(&str, &[Change])] = &[
    (
        "XdbNotRecoverable",
        &[(
            "xdb_check_verdict{check=\"recoverability\",verdict=\"critical\"",
            Some("1"),
        )],
    ),
    (
        "XdbRecoverabilityUnknown",
        &[(
            "xdb_check_verdict{check=\"recoverability\",verdict=\"unknown\"",
            Some("1"),
        )],
    ),
    (
        "XdbEvidenceOld",
        &[("xdb_evidence_age_seconds", Some("5000"))],
    ),
    (
        "XdbRpoHigh",
        &[
            ("xdb_rpo_seconds", Some("1e6")),
            ("xdb_rpo_upper_bound", Some("0")),
        ],
    ),
    (
        "XdbRpoCritical",
        &[
            ("xdb_rpo_seconds", Some("1e6")),
            ("xdb_rpo_upper_bound", Some("0")),
        ],
    ),
    ("XdbRpoUnknown", &[("xdb_rpo_seconds", None)]),
    (
        "XdbRestoreTooSlow",
        &[("xdb_rto_forecast_seconds", Some("1e6"))],
    ),
    (
        "XdbWalMissing",
        &[(
            "xdb_check_verdict{check=\"wal-gap\",verdict=\"warning\"",
            Some("1"),
        )],
    ),
    (
        "XdbForeignBackup",
        &[(
            "xdb_check_verdict{check=\"foreign-backup\",verdict=\"critical\"",
            Some("1"),
        )],
    ),
    (
        "XdbRestoreTestFailed",
        &[("xdb_restore_test_passed", Some("0"))],
    ),
    ("XdbProofOld", &[("xdb_proof_age_seconds", Some("1e6"))]),
    ("XdbNeverProven", &[("xdb_proof_timestamp_seconds", None)]),
    (
        "XdbNewestBackupUnproven",
        &[("xdb_proof_newest_backup", Some("0"))],
    ),
    (
        "XdbArchivingStandsStill",
        &[("xdb_archive_oldest_ready_age_seconds", Some("400"))],
    ),
    (
        "XdbArchivingStoodStillLong",
        &[("xdb_archive_oldest_ready_age_seconds", Some("4000"))],
    ),
    (
        "XdbWalVolumeFills",
        &[
            ("xdb_archive_oldest_ready_age_seconds", Some("400")),
            ("xdb_wal_volume_full_seconds", Some("60")),
        ],
    ),
    (
        "XdbBaseBackupOld",
        &[("xdb_base_backup_age_seconds", Some("1e6"))],
    ),
    ("XdbDumpOld", &[("xdb_dump_age_seconds", Some("1e6"))]),
    (
        "XdbJobOverdue",
        &[
            (
                "xdb_job_next_run_timestamp_seconds{job_name=\"dump\"",
                Some("0"),
            ),
            ("xdb_job_running{job_name=\"dump\"", Some("0")),
        ],
    ),
    ("XdbDaemonDown", &[("up", Some("0"))]),
    (
        "XdbNoPrimary",
        &[(
            "xdb_check_verdict{check=\"primary\",verdict=\"critical\"",
            Some("1"),
        )],
    ),
    (
        "XdbSuperseded",
        &[("xdb_node_role{role=\"superseded\"", Some("1"))],
    ),
    (
        "XdbRoleUnknown",
        &[("xdb_node_role{role=\"unknown\"", Some("1"))],
    ),
    (
        "XdbReplicationLag",
        &[("xdb_replication_lag_seconds", Some("100"))],
    ),
    (
        "XdbServiceDown",
        &[("xdb_service_up{service=\"s3\"", Some("0"))],
    ),
    ("XdbAlertsWait", &[("xdb_alert_outbox_events", Some("3"))]),
    (
        "XdbCheckCritical",
        &[(
            "xdb_check_verdict{check=\"postgresql-up\",verdict=\"critical\"",
            Some("1"),
        )],
    ),
    (
        "XdbCheckUnknown",
        &[(
            "xdb_check_verdict{check=\"archiver\",verdict=\"unknown\"",
            Some("1"),
        )],
    ),
];

pub(super) fn metrics_and_page(cluster: &Cluster) {
    for node in ["db1", "db2"] {
        page(cluster, node);
    }
    write(cluster, "rules.yml", RULES);
    let check = promtool(cluster, "check rules rules.yml");
    assert_eq!(check.code, 0, "{check:?}");
    // Beside other tests a look at S3 or a sample may just be late, which is an alert of its own.
    let mut firing = String::new();
    let scraped = eventually("a scrape on which no rule fires", SETTLED, || {
        let scraped = scrape(cluster);
        let said = test_rules(cluster, &case(&scraped, &[], None));
        if said.stderr != firing {
            firing.clone_from(&said.stderr);
            eprintln!("{firing}");
        }
        (said.code == 0).then_some(scraped)
    });
    rules(cluster, &scraped);
}

/// For a cluster that is well to be seen so.
const SETTLED: Duration = Duration::from_secs(90);

/// The series of both nodes.
fn scrape(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let mut scraped = Vec::new();
    for node in ["db1", "db2"] {
        let ask = |accept: &str| {
            let curl = format!("curl -sf -m 5 -H 'Accept: {accept}' http://127.0.0.1:8009/metrics");
            cluster.sh(node, &curl).succeeded("a scrape")
        };
        let text = ask("text/plain");
        let open = ask("application/openmetrics-text; version=1.0.0");
        assert!(open.ends_with("# EOF") && !text.contains("# EOF"), "{open}");
        let check = "curl -sf -m 5 http://127.0.0.1:8009/metrics | promtool check metrics";
        cluster.sh(node, check).succeeded("promtool check metrics");
        let series = text.lines().filter(|line| !line.starts_with('#'));
        scraped.extend(series.map(|line| (node, line.to_owned())));
    }
    assert!(
        scraped.len() <= 400,
        "{} series of both nodes",
        scraped.len()
    );
    // A check has only the series of the verdict that holds; a fault gives it another.
    let verdicts = ["warning", "unknown", "critical"].map(|word| format!("verdict=\"{word}\"}} 0"));
    let checks = scraped.iter().filter_map(|(node, line)| {
        let begin = line.strip_suffix("verdict=\"ok\"} 1")?;
        line.starts_with("xdb_check_verdict")
            .then(|| (*node, begin.to_owned()))
    });
    let others = checks.flat_map(|(node, begin)| {
        let series = move |verdict: &String| (node, format!("{begin}{verdict}"));
        verdicts.iter().map(series).collect::<Vec<_>>()
    });
    let others: Vec<_> = others.collect();
    scraped.extend(others);
    // The lab wants no RTO, and its volume may have seen too little WAL for a forecast.
    for line in [
        "xdb_rto_objective_seconds 3600.0",
        "xdb_wal_volume_full_seconds 1000000.0",
    ] {
        let name = line.split(' ').next().expect("a name");
        if !scraped.iter().any(|(_, known)| known.starts_with(name)) {
            scraped.push(("db1", line.to_owned()));
        }
    }
    scraped
}

/// A series of a scrape as Prometheus stores it, with its value or the fault's.
fn input(node: &str, line: &str, fault: &[Change]) -> Option<String> {
    let (series, value) = line.rsplit_once(' ').expect("a series has a value");
    let of_fault = fault.iter().find(|(begin, _)| series.starts_with(begin));
    let value = of_fault.map_or(Some(value), |(_, value)| *value)?;
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let comma = if labels == "}" { "" } else { "," };
    let target = format!("instance=\"{node}:8009\",job=\"xdb\"");
    let series = format!("{name}{{{target}{comma}{labels}");
    Some(format!(
        "      - series: '{series}'\n        values: '{value}+0x300'\n"
    ))
}

/// One case for promtool: with `fault` the rules that fire are counted; `alert` is the one that must, or none may.
fn case(scraped: &[(&str, String)], fault: &[Change], alert: Option<&str>) -> String {
    let mut case = "  - interval: 10m\n    input_series:\n".to_owned();
    let name = |line: &str| line.split(['{', ' ']).next().map(str::to_owned);
    for (node, line) in scraped {
        // What no rule asks for would only make the file large.
        if name(line).is_some_and(|name| RULES.contains(&name)) {
            case.extend(input(node, line, fault));
        }
    }
    for node in ["db1", "db2"] {
        case.extend(input(node, "up 1", fault));
    }
    // Where none may fire, promtool names what does.
    case += &match alert {
        Some(alert) => format!(
            "    promql_expr_test:\n      - expr: 'count(ALERTS{{alertname=\"{alert}\",alertstate=\"firing\"}}) > bool 0'\n        \
             eval_time: 40h\n        exp_samples:\n          - labels: '{{}}'\n            value: 1\n"
        ),
        None => "    promql_expr_test:\n      - expr: 'ALERTS{alertstate=\"firing\"}'\n        eval_time: 40h\n        exp_samples: []\n".to_owned(),
    };
    case
}

fn rules(cluster: &Cluster, scraped: &[(&str, String)]) {
    let names: Vec<&str> = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    let faults: Vec<&str> = FAULTS.iter().map(|(alert, _)| *alert).collect();
    assert_eq!(names, faults, "each rule has its fault");
    let mut cases = String::new();
    for (alert, fault) in FAULTS {
        for (begin, _) in fault.iter().filter(|(begin, _)| *begin != "up") {
            let found = scraped.iter().any(|(_, line)| line.starts_with(begin));
            assert!(found, "no series begins with {begin}");
        }
        cases += &case(scraped, fault, Some(alert));
    }
    let said = test_rules(cluster, &cases);
    assert_eq!(said.code, 0, "{said:?}");
}

const DIRECTORY: &str = "/tmp/rules";

fn test_rules(cluster: &Cluster, cases: &str) -> Output {
    let head = "rule_files: [rules.yml]\nevaluation_interval: 10m\ntests:\n";
    write(cluster, "cases.yml", &format!("{head}{cases}"));
    promtool(cluster, "test rules cases.yml")
}

fn promtool(cluster: &Cluster, arguments: &str) -> Output {
    cluster.sh("db1", &format!("cd {DIRECTORY} && promtool {arguments}"))
}

fn write(cluster: &Cluster, name: &str, text: &str) {
    let path = format!("{DIRECTORY}/{name}");
    let begin = format!("mkdir -p {DIRECTORY} && rm -f {path}");
    cluster.sh("db1", &begin).succeeded("mkdir");
    for part in text.as_bytes().chunks(60_000) {
        let part = std::str::from_utf8(part).expect("ASCII");
        let append =
            format!("cat >>{path} <<'END_OF_PART'\n{part}\nEND_OF_PART\ntruncate -s -1 {path}");
        cluster.sh("db1", &append).succeeded(name);
    }
}

fn page(cluster: &Cluster, node: &str) {
    let (code, page) = cluster.http(node, "/");
    assert_eq!(code, 200);
    for part in [
        "If db1 is lost now: recoverable to 0/",
        ">db2</th>",
        "restore-test",
        "proven",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(page.len() < 100_000, "{} bytes", page.len());
    let heads = "curl -s -m 5 -D - -o /dev/null http://127.0.0.1:8009/";
    let heads = cluster.sh(node, heads).stdout.to_lowercase();
    for head in [
        "content-security-policy: default-src 'none';",
        "cache-control: no-store",
    ] {
        assert!(heads.contains(head), "{heads}");
    }
    let post = "curl -s -m 5 -o /dev/null -w '%{http_code}' -X POST http://127.0.0.1:8009/";
    assert_eq!(cluster.sh(node, post).stdout, "405");
    let (code, badge) = cluster.http(node, "/badge/proven.svg");
    assert!(
        code == 200 && badge.contains("restore proven") && badge.contains(" ago"),
        "{badge}"
    );
    assert_eq!(cluster.http(node, "/runbooks/s3").0, 200);
    assert_eq!(cluster.http(node, "/runbooks/..%2Fxdb.toml").0, 404);
}
