//! What is wrong is told by its place, with what to do instead.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use proptest::prelude::*;

use super::key::Key;
use super::keys::KEYS;
use super::tests::Machine;
use super::*;

#[test]
fn a_wrong_value_is_told_with_place_key_and_example() {
    for (text, message, hint) in [
        (
            "[postgres]\nport = '5433'",
            "xdb.toml:2: postgres.port is the text \"5433\", expected a port from 1 to 65535",
            "for example port = 5432 in [postgres]",
        ),
        (
            "postgres.port = 0",
            "xdb.toml:1: postgres.port is the number 0, expected a port from 1 to 65535",
            "for example port = 5432 in [postgres]",
        ),
        (
            "[cluster]\naccount = 123456789012",
            "xdb.toml:2: cluster.account is the number 123456789012, expected a name of lowercase letters, digits and inner dashes",
            "for example account = \"123456789012\" in [cluster]",
        ),
        (
            "archive = { push_timeout = '5' }",
            "xdb.toml:1: archive.push_timeout is the text \"5\", expected a duration above zero, such as 90s, 5m or 6h",
            "for example push_timeout = \"2m\" in [archive]",
        ),
        (
            "[archive]\ncompression = 'gzip'",
            "xdb.toml:2: archive.compression is the text \"gzip\", expected one of lz4, zstd, lzma, brotli, none",
            "for example compression = \"lz4\" in [archive]",
        ),
        (
            "[s3]\nforce_path_style = 'true'\n",
            "xdb.toml:2: s3.force_path_style is the text \"true\", expected true or false",
            "for example force_path_style = false in [s3]",
        ),
        (
            "[node.state_directory]\n",
            "xdb.toml:1: node.state_directory is a table, expected an absolute path",
            "for example state_directory = \"/var/lib/xdb\" in [node]",
        ),
        (
            "[s3]\nregion = ''",
            "xdb.toml:2: s3.region is empty, expected text on one line, without blanks at its ends",
            "for example region = \"us-east-1\" in [s3]",
        ),
    ] {
        let (complaint, advice) = Machine::new().file(text).complaint();
        assert_eq!(
            (complaint.as_str(), advice.as_str()),
            (message, hint),
            "{text}"
        );
    }
}

#[test]
fn the_roots_of_public_authorities_need_the_strict_mode_and_make_it_the_default() {
    const SYSTEM: &str = "sslrootcert = 'system'";
    for (text, expected) in [
        ("[postgres]\nsslmode = 'prefer'", Ok("prefer")),
        ("[postgres]", Ok("prefer")),
        (&format!("[postgres]\n{SYSTEM}"), Ok("verify-full")),
        (
            &format!("[postgres]\nsslmode = 'verify-full'\n{SYSTEM}"),
            Ok("verify-full"),
        ),
        ("[postgres]\nsslrootcert = '/etc/ca.pem'", Ok("prefer")),
        (
            &format!("[postgres]\nsslmode = 'prefer'\n{SYSTEM}"),
            Err(
                "xdb.toml:2: postgres.sslmode is \"prefer\", which is too weak for postgres.sslrootcert = \"system\" (xdb.toml:3)",
            ),
        ),
        (
            &format!("[postgres]\nsslmode = 'verify-ca'\n{SYSTEM}"),
            Err(
                "xdb.toml:2: postgres.sslmode is \"verify-ca\", which is too weak for postgres.sslrootcert = \"system\" (xdb.toml:3)",
            ),
        ),
        (
            &format!("[wait]\nsslmode = 'require'\n{SYSTEM}"),
            Err(
                "xdb.toml:2: wait.sslmode is \"require\", which is too weak for wait.sslrootcert = \"system\" (xdb.toml:3)",
            ),
        ),
        (&format!("[wait]\n{SYSTEM}"), Ok("prefer")),
    ] {
        let machine = Machine::new().file(text);
        match expected {
            Ok(mode) => assert_eq!(machine.load().config.postgres.sslmode, mode, "{text}"),
            Err(message) => assert_eq!(machine.complaint().0, message, "{text}"),
        }
    }
}

#[test]
fn an_unknown_name_is_told_with_the_nearest_one() {
    let mut sections: Vec<_> = KEYS.iter().map(Key::section).collect();
    sections.dedup();
    let sections = format!("the sections are {}", sections.join(", "));
    for (text, message, hint) in [
        (
            "[postgres]\nprot = 1",
            "xdb.toml:2: there is no key postgres.prot",
            "did you mean postgres.port?",
        ),
        (
            "[postgre]\nport = 1",
            "xdb.toml:1: there is no section [postgre]",
            "did you mean [postgres]?",
        ),
        (
            "[nowhere]",
            "xdb.toml:1: there is no section [nowhere]",
            sections.as_str(),
        ),
        (
            "bin_directory = 1",
            "xdb.toml:1: bin_directory stands outside of any section",
            "did you mean postgres.bin_directory?",
        ),
        (
            "postgres = 1",
            "xdb.toml:1: postgres is a section, not a value",
            "write [postgres] on a line of its own, and its keys below",
        ),
        (
            "[node]\nrole = 'primary'",
            "xdb.toml:2: there is no key node.role",
            "[node] has hostname, state_directory",
        ),
        (
            "[archive]\nsettings = 1",
            "xdb.toml:2: archive.settings is a section, not a value",
            "write [archive.settings] on a line of its own, and its keys below",
        ),
        (
            "[archive.settings]\nWALG_S3_PREFIX = 's3://b/p'",
            "xdb.toml:2: archive.settings.WALG_S3_PREFIX is not free: xdb itself tells the program",
            "set archive.repository",
        ),
        (
            "[archive.settings]\nWALG_X = [1]",
            "xdb.toml:2: archive.settings.WALG_X is an array, expected text, a number or a boolean",
            "for example WALG_X = 16 in [archive.settings]",
        ),
    ] {
        let (complaint, advice) = Machine::new().file(text).complaint();
        assert_eq!(
            (complaint.as_str(), advice.as_str()),
            (message, hint),
            "{text}"
        );
    }
}

#[test]
fn a_wrong_variable_or_flag_or_seed_is_told_by_its_name() {
    let machine = Machine::new;
    for (machine, message, hint) in [
        (
            machine().variable("XDB_POSTGRES_PORT", "pg"),
            "XDB_POSTGRES_PORT: postgres.port is \"pg\", expected a port from 1 to 65535",
            "for example XDB_POSTGRES_PORT=5432",
        ),
        (
            machine().variable("XDB_POSTGRES_PROT", "1"),
            "XDB_POSTGRES_PROT: there is no such key",
            "did you mean XDB_POSTGRES_PORT?",
        ),
        (
            machine().variable("XDB_CONFG", ""),
            "XDB_CONFG: there is no such key",
            "did you mean XDB_CONFIG?",
        ),
        (
            machine().variable("XDB_ARCHIVE_SETTINGS_WALG_COMPRESSION_METHOD", "lz4"),
            "XDB_ARCHIVE_SETTINGS_WALG_COMPRESSION_METHOD: archive.settings.WALG_COMPRESSION_METHOD is not free: xdb itself tells the program",
            "set archive.compression",
        ),
        (
            machine().flag("archive.repository", "bucket", "--repository"),
            "--repository: archive.repository is \"bucket\", expected s3://bucket/prefix, with {account}, {cluster} and {major} as the only placeholders, outside of xdb/",
            "for example --repository s3://walg-{account}/{cluster}/pg{major}",
        ),
        (
            machine().seed("\nAWS_ENDPOINT=s3\n"),
            "environment:2 (AWS_ENDPOINT): s3.endpoint is \"s3\", expected a URL that begins with http:// or https://, without user and password",
            "correct it there, or set s3.endpoint in xdb.toml, which ranks above",
        ),
    ] {
        let (complaint, advice) = machine.complaint();
        assert_eq!((complaint.as_str(), advice.as_str()), (message, hint));
    }
}

#[test]
fn variables_of_the_lab_and_of_tools_are_no_keys() {
    let names = [
        "XDB_CONFIG",
        "XDB_LOG",
        "XDB_LAB_NODE",
        "XDB_CACHE",
        "XDB_CACHE_DIRECTORY",
        "XDBX",
        "xdb_a",
    ];
    names
        .into_iter()
        .fold(Machine::new(), |machine, name| machine.variable(name, "x"))
        .load();
}

#[test]
fn everything_wrong_is_told_at_once() {
    let machine = Machine::new()
        .file("[postgres]\nport = 'x'\nhots = 'y'\n[s4]\n")
        .variable("XDB_NODE_HOSTNAME", " ")
        .variable("XDB_NODE", "1");
    let (complaint, hint) = machine.complaint();
    let places: Vec<_> = complaint
        .lines()
        .filter_map(|line| line.split(": ").next())
        .collect();
    assert_eq!(
        places,
        [
            "xdb.toml:2",
            "xdb.toml:3",
            "xdb.toml:4",
            "XDB_NODE",
            "XDB_NODE_HOSTNAME"
        ]
    );
    assert_eq!(hint.lines().count(), 5, "{hint}");
}

#[test]
fn what_is_no_toml_is_told_with_its_line_and_without_its_text() {
    for (text, line) in [
        ("[postgres]\npassword = \"hunter2", 2),
        ("[postgres]\npassword = hunter2\n", 2),
        ("[postgres]\nport = 1\nport = 2\n", 3),
        ("[s3]\n[postgres]\n[s3]\n", 3),
        ("a = 1\n[", 2),
    ] {
        let (complaint, hint) = Machine::new().file(text).complaint();
        assert!(
            complaint.starts_with(&format!("xdb.toml:{line}: ")),
            "{complaint}"
        );
        assert!(
            !complaint.contains("hunter2") && !complaint.contains('\n') && !hint.is_empty(),
            "{complaint}"
        );
    }
    let machine = Machine::new();
    std::fs::write(machine.sources.file.path(), b"[s3]\n\n# \xff\n").unwrap();
    assert_eq!(machine.complaint().0, "xdb.toml:3: not UTF-8");
}

#[test]
fn a_line_that_is_no_toml_ends_the_daemon_only_where_serving_needs_it() {
    const REST: &str = "\n[postgres]\nport = 5433\n";
    for (text, faults) in [
        ("[dump]\ntimeout = 6h", &["dump.timeout"][..]),
        ("[archive]\nrepository = s3://a/b", &["archive.repository"]),
        ("[archive]\nprogram = \"wal-g", &["archive.program"]),
        ("[archive]\nprogram", &["archive"]),
        ("[archive]\npro gram = \"hunter2\"", &["archive"]),
        (
            "[archive.settings]\nWALG_X = hunter2",
            &["archive.settings.WALG_X"],
        ),
        (
            "[s3]\nregion = a\nendpoint =\nregion = \"b\"",
            &["s3.region", "s3.endpoint"],
        ),
        ("[retention]\nfulls = 3\nfulls = 4", &["retention.fulls"]),
        ("[dump]\ntimeout = \"\"\"\n", &[]),
        ("[postgres]\nuser = me", &[]),
        ("[http]\nlisten", &[]),
        ("[cluster]\nname = a", &[]),
        ("[dump", &[]),
        ("dump.timeout = 6h", &[]),
    ] {
        let file = format!(
            "{text}{}",
            if text.contains("[postgres]") {
                ""
            } else {
                REST
            }
        );
        let machine = Machine::new().file(&file);
        assert!(load(&machine.sources).is_err(), "{text}");
        let Ok(loaded) = load_to_serve(&machine.sources) else {
            assert_eq!(faults, [""; 0], "{text}");
            continue;
        };
        assert_eq!(loaded.config.postgres.port, 5433, "{text}");
        let keys: Vec<_> = loaded.faults.iter().map(|fault| &fault.key).collect();
        assert_eq!(keys, faults, "{text}");
        assert!(
            loaded
                .faults
                .iter()
                .all(|it| !it.message.contains("hunter2")),
            "{text}"
        );
    }
    let machine = Machine::new();
    std::fs::write(
        machine.sources.file.path(),
        b"# \xe9\n[postgres]\n# \xe9\nport = 5433\n",
    )
    .unwrap();
    let loaded = load_to_serve(&machine.sources).unwrap();
    assert_eq!(loaded.config.postgres.port, 5433);
    assert_eq!(loaded.config.faults, Default::default());
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let mut machine = Machine::new();
    machine.load();
    machine.sources.file = ConfigFile::Named(machine.directory.path().join("other.toml"));
    let (complaint, hint) = machine.complaint();
    assert_eq!(complaint, "other.toml does not exist");
    assert!(hint.contains("--config or XDB_CONFIG"), "{hint}");
}

#[test]
fn a_file_that_cannot_be_read_is_never_taken_for_an_empty_one() {
    let mut machine = Machine::new();
    machine.sources.file = ConfigFile::Default(machine.directory.path().to_owned());
    assert!(machine.complaint().0.starts_with("cannot read "));
    let denied = ConfigError::Read {
        path: PathBuf::from("/etc/xdb/xdb.toml"),
        source: std::io::ErrorKind::PermissionDenied.into(),
    };
    assert!(denied.hint().unwrap().contains("group postgres"));
}

#[test]
fn a_value_that_is_no_text_is_refused() {
    let mut machine = Machine::new();
    machine
        .sources
        .process
        .insert("XDB_POSTGRES_USER".into(), OsString::from_vec(vec![0xff]));
    assert_eq!(
        machine.complaint().0,
        "XDB_POSTGRES_USER: the value for postgres.user is not UTF-8"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_file_and_no_seed_make_it_panic(file in "[a-z0-9.=\\[\\]{}\"' \n]{0,80}", seed in any::<String>()) {
        let machine = Machine::new().file(&file).seed(&seed);
        let _ = load(&machine.sources);
    }
}
