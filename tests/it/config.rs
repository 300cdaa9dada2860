//! The configuration as a node has it: file, seed environment, variables, flags.

use crate::harness::{Lab, Program};

#[test]
fn every_source_has_its_rank_and_no_secret_is_shown() {
    let lab = Lab::start_bare(Program::Walrus);
    lab.write_file(
        "/etc/environment",
        "HOSTNAME=\"db2\"\nexport PGPASSWORD='hush hush' # not this\nAWS_REGION=eu-central-1\n",
        "root:root",
        "0644",
    );
    let shown = lab.sh_as_postgres("XDB_POSTGRES_PORT=5555 xdb config show");
    assert_eq!(shown.code, 0, "{shown:?}");
    let line = |key: &str| {
        let line = shown
            .stdout
            .lines()
            .find(|line| line.split_whitespace().next() == Some(key));
        line.unwrap_or_else(|| panic!("{key}: {shown:?}"))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        line("postgres.port"),
        "postgres.port 5555 XDB_POSTGRES_PORT"
    );
    assert!(
        line("s3.region").starts_with("s3.region us-east-1 /etc/xdb/xdb.toml:"),
        "{}",
        line("s3.region")
    );
    assert_eq!(
        line("restore_test.timeout"),
        "restore_test.timeout 6h default"
    );
    assert!(line("postgres.password").starts_with("postgres.password ******** /etc/xdb/xdb.toml:"));
    for secret in ["lab-password", "lab-secret-key", "hush"] {
        assert!(!format!("{shown:?}").contains(secret), "{shown:?}");
    }
    // What a template is on this node, and what is missing for it.
    let filled = lab.sh_as_postgres(
        "XDB_ARCHIVE_REPOSITORY='s3://walg-{account}/{cluster}/pg{major}' AWS_ACCOUNT_ID=4711 xdb config show",
    );
    for shown in [
        "archive.repository, filled in   s3://walg-4711/main/pg17",
        "dump.repository, filled in      s3://pgdump-test/main",
    ] {
        assert!(filled.stdout.contains(shown), "{filled:?}");
    }
    let unknown =
        lab.sh_as_postgres("XDB_DUMP_REPOSITORY='s3://dumps-{account}/main' xdb config show");
    assert!(
        unknown.stdout.contains("{account} is not known here"),
        "{unknown:?}"
    );
    // Without a file the seed environment speaks.
    let seeded = lab.sh_as_postgres("env -u HOSTNAME XDB_CONFIG=/dev/null xdb config show");
    assert!(
        seeded.stdout.contains("/etc/environment:1 (HOSTNAME)"),
        "{seeded:?}"
    );
    assert!(
        seeded.stdout.contains("/etc/environment:2 (PGPASSWORD)"),
        "{seeded:?}"
    );
    assert!(!format!("{seeded:?}").contains("hush"), "{seeded:?}");
}

#[test]
fn a_wrong_key_or_value_stops_with_its_place_and_what_was_expected() {
    let lab = Lab::start_bare(Program::Walrus);
    lab.config("[postgres]\nprot = 5432");
    let wrong = lab.xdb(&["config", "show"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    let line = lab.ok("grep -n '^prot' /etc/xdb/xdb.toml | cut -d: -f1");
    assert!(
        wrong
            .stderr
            .contains(&format!("/etc/xdb/xdb.toml:{line}: ")),
        "{wrong:?}"
    );
    assert!(
        wrong.stderr.contains("postgres.prot") && wrong.stderr.contains("postgres.port"),
        "{wrong:?}"
    );

    lab.config("[archive]\npush_timeout = \"soon\"\n[s3]\nforce_path_style = 1");
    let wrong = lab.xdb(&["config", "show"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    for words in ["archive.push_timeout", "s3.force_path_style", "HINT:"] {
        assert!(wrong.stderr.contains(words), "{words}: {wrong:?}");
    }
    lab.config("");
    lab.ok("chmod 0644 /etc/xdb/xdb.toml");
    let open = lab.xdb(&["config", "show"]);
    assert_eq!(
        (open.code, open.stderr.contains("chmod 0640")),
        (2, true),
        "{open:?}"
    );
    assert_eq!(lab.xdb(&["no-such-verb"]).code, 2);
    assert_eq!(
        lab.xdb(&["--config", "/no/such/file", "config", "show"])
            .code,
        2
    );
}
