//! What Prometheus and a browser get from a cluster that is well, and that each packaged rule fires on its own fault.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Cluster, Output, eventually};

const RULES: &str = include_str!("../../../packaging/prometheus-rules.yml");
const DASHBOARD: &str = include_str!("../../../packaging/grafana-dashboard.json");

/// A series whose name begins like that gets the value, or is missing; where none begins so, it is added on db1.
type Change = (&'static str, Option<&'static str>);

/// What a scrape shows of a raised alert that nobody has silenced.
macro_rules! raised {
    ($check:literal, $severity:literal) => {
        &[(
            concat!(
                "xdb_check_alerts{check=\"",
                $check,
                "\",severity=\"",
                $severity,
                "\",silenced=\"false\"}"
            ),
            Some("1"),
        )]
    };
}

/// For each rule what its fault does to a scrape.
const FAULTS: &[(&str, &[Change])] = &[
    ("XdbNotRecoverable", raised!("recoverability", "unknown")),
    ("XdbRpoHigh", raised!("archive-rpo", "critical")),
    ("XdbRestoreTooSlow", raised!("restore-objective", "warning")),
    ("XdbRepositoryFault", raised!("wal-gap", "warning")),
    ("XdbRestoreTestFailed", raised!("restore-test", "critical")),
    ("XdbDumpTestFailed", raised!("dump-test", "critical")),
    ("XdbProofOld", raised!("restore-test-age", "critical")),
    ("XdbArchivingFails", raised!("archiver", "warning")),
    ("XdbDiskFills", raised!("disk", "critical")),
    ("XdbBackupOld", raised!("base-backup-age", "critical")),
    ("XdbJobFailed", raised!("dump", "unknown")),
    ("XdbNoPrimary", raised!("primary", "critical")),
    ("XdbNodeLost", raised!("node", "critical")),
    ("XdbServerDown", raised!("pgbouncer-up", "warning")),
    ("XdbReplicationLag", raised!("replication-lag", "warning")),
    (
        "XdbReplicationFault",
        raised!("replication-slots-lost", "critical"),
    ),
    ("XdbDataDamaged", raised!("checksum-failures", "critical")),
    (
        "XdbConnectionsShort",
        raised!("postgresql-connections", "warning"),
    ),
    ("XdbServiceDown", raised!("redis", "warning")),
    ("XdbCheckNotOk", raised!("one-of-the-operator", "warning")),
    ("XdbDaemonDown", &[("up", Some("0"))]),
    ("XdbNotJudging", &[("xdb_checks_age_seconds", Some("1000"))]),
    (
        "XdbOwnWorkOld",
        &[("xdb_own_work_age_seconds", Some("1000"))],
    ),
    (
        "XdbEvidenceOld",
        &[("xdb_evidence_age_seconds", Some("5000"))],
    ),
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
    ("XdbAlertsWait", &[("xdb_alert_outbox_events", Some("3"))]),
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
        let said = test_rules(cluster, &case(&scraped, &[], &[]));
        if said.stderr != firing {
            firing.clone_from(&said.stderr);
            eprintln!("{firing}");
        }
        (said.code == 0).then_some(scraped)
    });
    rules(cluster, &scraped);
    dashboard(cluster, &scraped);
}

/// Waits until what both nodes serve fires each of `rules`. A node that does not answer is one that is down.
pub(super) fn fires(cluster: &Cluster, rules: &[&str]) {
    write(cluster, "rules.yml", RULES);
    eventually(&format!("{rules:?} fire"), SETTLED, || {
        let said = test_rules(cluster, &case(&scraped(cluster), &[], rules));
        (said.code == 0).then_some(())
    });
}

/// For a cluster that is well to be seen so.
const SETTLED: Duration = Duration::from_secs(90);

/// The series of each node that answers, and whether it does.
fn scraped(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let mut scraped = Vec::new();
    for node in ["db1", "db2"] {
        let answer = cluster.sh(
            ON,
            &format!("curl -sf -m 5 -H 'Accept: text/plain' http://{node}:8009/metrics"),
        );
        scraped.push((node, format!("up {}", u8::from(answer.code == 0))));
        let series = answer.stdout.lines().filter(|line| !line.starts_with('#'));
        scraped.extend(series.map(|line| (node, line.to_owned())));
    }
    scraped
}

/// The series of both nodes, which are well.
fn scrape(cluster: &Cluster) -> Vec<(&'static str, String)> {
    for node in ["db1", "db2"] {
        let ask = |accept: &str| {
            let curl = format!("curl -sf -m 5 -H 'Accept: {accept}' http://127.0.0.1:8009/metrics");
            cluster.sh(node, &curl).succeeded("a scrape")
        };
        let open = ask("application/openmetrics-text; version=1.0.0");
        assert!(
            open.ends_with("# EOF") && !ask("text/plain").contains("# EOF"),
            "{open}"
        );
        let check = "curl -sf -m 5 http://127.0.0.1:8009/metrics | promtool check metrics";
        cluster.sh(node, check).succeeded("promtool check metrics");
    }
    let mut scraped = scraped(cluster);
    let mut families: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, line) in &scraped {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        *families.entry(name).or_default() += 1;
    }
    let count: usize = families.values().sum();
    // Two tell whether each is up.
    eprintln!("{count} series of both nodes: {families:?}");
    assert!(count <= 402, "{count} series of both nodes: {families:?}");
    // The lab wants no RTO.
    let objective = "xdb_rto_objective_seconds";
    if !scraped.iter().any(|(_, line)| line.starts_with(objective)) {
        scraped.push(("db1", format!("{objective} 3600.0")));
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

/// The series of one case for promtool, with `fault`.
fn inputs(scraped: &[(&str, String)], fault: &[Change], of: &str) -> String {
    let mut case = "  - interval: 10m\n    input_series:\n".to_owned();
    let name = |line: &str| line.split(['{', ' ']).next().map(str::to_owned);
    for (node, line) in scraped {
        // What nothing asks for would only make the file large.
        if name(line).is_some_and(|name| of.contains(&name)) {
            case.extend(input(node, line, fault));
        }
    }
    for (begin, value) in fault {
        if let Some(value) = value.filter(|_| !is_in(scraped, begin)) {
            case.extend(input("db1", &format!("{begin} {value}"), &[]));
        }
    }
    case
}

fn is_in(scraped: &[(&str, String)], begin: &str) -> bool {
    scraped.iter().any(|(_, line)| line.starts_with(begin))
}

/// One case for promtool: each of `alerts` must fire; without any, none may.
fn case(scraped: &[(&str, String)], fault: &[Change], alerts: &[&str]) -> String {
    let mut case = inputs(scraped, fault, RULES) + "    promql_expr_test:\n";
    for alert in alerts {
        // By the severities that people route.
        let firing = format!(
            "ALERTS{{alertname=\"{alert}\",alertstate=\"firing\",severity=~\"critical|warning\"}}"
        );
        case += &has_samples(&firing);
    }
    // Where none may fire, promtool names what does.
    if alerts.is_empty() {
        case += "      - expr: 'ALERTS{alertstate=\"firing\"}'\n        eval_time: 40h\n        exp_samples: []\n";
    }
    case
}

/// The test of an expression that it has a value.
fn has_samples(expression: &str) -> String {
    format!(
        "      - expr: 'count({expression}) > bool 0'\n        eval_time: 40h\n        exp_samples:\n          \
         - labels: '{{}}'\n            value: 1\n"
    )
}

fn rules(cluster: &Cluster, scraped: &[(&str, String)]) {
    let names: Vec<&str> = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    let faults: Vec<&str> = FAULTS.iter().map(|(alert, _)| *alert).collect();
    assert_eq!(names, faults, "each rule has its fault");
    let mut cases = String::new();
    let mut silenced = scraped.to_vec();
    for (alert, fault) in FAULTS {
        for (begin, _) in *fault {
            let is_alert = begin.starts_with("xdb_check_alerts{");
            assert!(
                is_alert || is_in(scraped, begin),
                "no series begins with {begin}"
            );
            if is_alert {
                let hidden = begin.replace("silenced=\"false\"", "silenced=\"true\"");
                silenced.push(("db1", format!("{hidden} 1")));
            }
        }
        cases += &case(scraped, fault, &[alert]);
    }
    // What people have silenced in xdb fires nothing.
    cases += &case(&silenced, &[], &[]);
    let said = test_rules(cluster, &cases);
    assert_eq!(said.code, 0, "{said:?}");
}

/// Each expression has a value on a scrape; the table of bad checks where one is bad.
fn dashboard(cluster: &Cluster, scraped: &[(&str, String)]) {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array());
    let fault = [(
        "xdb_check_verdict{check=\"archiver\",verdict=\"warning\"}",
        Some("1"),
    )];
    // A check has only the series of the verdict that holds.
    let well = "xdb_check_verdict{check=\"archiver\",verdict=\"ok\"} 1";
    assert!(is_in(scraped, well), "{scraped:?}");
    let mut case = inputs(scraped, &fault, DASHBOARD) + "    promql_expr_test:\n";
    let mut count = 0;
    for target in targets.flatten() {
        let expression = target["expr"].as_str().expect("an expression");
        let expression = expression
            .replace("$job", "xdb")
            .replace("$__rate_interval", "30m");
        assert!(!expression.contains('$'), "{expression}");
        case += &has_samples(&expression);
        count += 1;
    }
    assert!(count > 20, "{count}");
    let said = test_rules(cluster, &case);
    assert_eq!(said.code, 0, "{said:?}");
}

const DIRECTORY: &str = "/tmp/rules";
/// Where promtool runs: no test stops this node.
const ON: &str = "management";

fn test_rules(cluster: &Cluster, cases: &str) -> Output {
    let head = "rule_files: [rules.yml]\nevaluation_interval: 10m\ntests:\n";
    write(cluster, "cases.yml", &format!("{head}{cases}"));
    promtool(cluster, "test rules cases.yml")
}

fn promtool(cluster: &Cluster, arguments: &str) -> Output {
    cluster.sh(ON, &format!("cd {DIRECTORY} && promtool {arguments}"))
}

fn write(cluster: &Cluster, name: &str, text: &str) {
    let path = format!("{DIRECTORY}/{name}");
    let begin = format!("mkdir -p {DIRECTORY} && rm -f {path}");
    cluster.sh(ON, &begin).succeeded("mkdir");
    for part in text.as_bytes().chunks(60_000) {
        let part = std::str::from_utf8(part).expect("ASCII");
        let append =
            format!("cat >>{path} <<'END_OF_PART'\n{part}\nEND_OF_PART\ntruncate -s -1 {path}");
        cluster.sh(ON, &append).succeeded(name);
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
