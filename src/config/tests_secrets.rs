//! Secrets reach those who need them, and nobody else.

use std::path::PathBuf;

use secrecy::ExposeSecret;

use super::tests::{Machine, set};
use super::*;

#[test]
fn no_secret_is_shown_anywhere() {
    let file =
        "[postgres]\npassword = 'hunter2'\n[archive.settings]\nWALG_LIBSODIUM_KEY = 'hunter2'\n";
    let machine = Machine::new()
        .file(file)
        .seed("AWS_ACCESS_KEY_ID=id\nAWS_SECRET_ACCESS_KEY=hunter2\nAWS_SESSION_TOKEN=hunter2\n")
        .variable("XDB_ARCHIVE_SETTINGS_WALG_PGP_KEY", "hunter2")
        .flag("postgres.password", "hunter2", "--password");
    let loaded = machine.load();
    for shown in [
        format!("{loaded:?}"),
        format!("{:?}", machine.sources),
        format!("{:?}", loaded.to_environment()),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(
        machine.shown("postgres.password"),
        set("********", "--password")
    );
    assert_eq!(
        loaded.config.postgres.password.unwrap().expose_secret(),
        "hunter2"
    );
    assert_eq!(
        loaded.config.archive.settings["WALG_LIBSODIUM_KEY"].expose_secret(),
        "hunter2"
    );

    for machine in [
        Machine::new().file("[postgres]\npassword = 20061\n"),
        Machine::new().file("[postgres]\npassword = ['20061']\n"),
        Machine::new().file("[postgres]\npassword = \"20061\\n\"\n"),
        Machine::new().file("[archive.settings]\nWALG_PGP_KEY = ['20061']\n"),
        Machine::new().file("[dump]\nage_recipients = 'age-secret-key-20061'\n"),
        Machine::new().file("[dump]\nage_identity_file = 'AGE-SECRET-KEY-20061'\n"),
        Machine::new().variable("XDB_DUMP_AGE_RECIPIENTS", "AGE-SECRET-KEY-20061"),
        Machine::new().file("[s3]\nendpoint = 'https://id:20061@s3'\n"),
        Machine::new().variable("XDB_POSTGRES_PASSWORD", "20061\r"),
        Machine::new().variable("XDB_S3_ENDPOINT", "https://id:20061@s3"),
        Machine::new().seed("PGPASSWORD=20061\r\n"),
    ] {
        let error = load(&machine.sources).unwrap_err();
        let shown = format!("{error} {:?} {error:?}", error.hint());
        assert!(!shown.contains("20061"), "{shown}");
    }
}

#[test]
fn a_file_with_a_secret_must_not_be_open_to_every_user() {
    for secret in [
        "[postgres]\npassword = 'x'",
        "[archive.settings]\nWALG_LIBSODIUM_KEY = 'x'",
    ] {
        for mode in [0o644, 0o642, 0o641] {
            let (complaint, hint) = Machine::new().file(secret).mode(mode).complaint();
            assert!(
                complaint.contains(&format!("open to every user (mode {mode:04o})")),
                "{complaint}"
            );
            assert_eq!(hint, "chown root:postgres xdb.toml && chmod 0640 xdb.toml");
        }
        Machine::new().file(secret).mode(0o600).load();
    }
    Machine::new()
        .file("[postgres]\nport = 5433\n[archive.settings]\nWALG_LOG_LEVEL = 'x'")
        .mode(0o644)
        .load();
}

#[test]
fn a_key_pair_comes_together_from_whatever_layers() {
    let (id, secret) = ("AWS_ACCESS_KEY_ID=id\n", "[s3]\nsecret_access_key = 's'\n");
    let (complaint, hint) = Machine::new().seed(id).complaint();
    assert_eq!(
        complaint,
        "environment:1 (AWS_ACCESS_KEY_ID): s3.access_key_id is set, but s3.secret_access_key is not"
    );
    assert!(hint.starts_with("set s3.secret_access_key too"), "{hint}");
    let (complaint, _) = Machine::new().file(secret).complaint();
    assert_eq!(
        complaint,
        "xdb.toml:2: s3.secret_access_key is set, but s3.access_key_id is not"
    );
    let (complaint, _) = Machine::new()
        .variable("AWS_SESSION_TOKEN", "t")
        .complaint();
    assert_eq!(
        complaint,
        "AWS_SESSION_TOKEN: s3.session_token is set, but s3.access_key_id is not"
    );

    let s3 = Machine::new().seed(id).file(secret).load().config.s3;
    assert_eq!(s3.access_key_id.as_deref(), Some("id"));
    assert_eq!(s3.secret_access_key.unwrap().expose_secret(), "s");
}

#[test]
fn a_kms_key_is_named_where_it_is_used_and_nowhere_else() {
    let s3 = |lines: &str| Machine::new().file(&format!("[s3]\n{lines}"));
    let kms = "server_side_encryption = 'aws:kms'\n";
    let (complaint, _) = s3(kms).complaint();
    assert_eq!(
        complaint,
        "xdb.toml:2: s3.server_side_encryption is \"aws:kms\", but s3.kms_key_id is not set"
    );
    for other in ["", "server_side_encryption = 'AES256'\n"] {
        let (complaint, _) = s3(&format!("kms_key_id = 'k'\n{other}")).complaint();
        assert_eq!(
            complaint,
            "xdb.toml:2: s3.kms_key_id is set, but s3.server_side_encryption is not \"aws:kms\""
        );
    }
    let loaded = s3(&format!("{kms}kms_key_id = 'k'\n")).load().config.s3;
    assert_eq!(loaded.kms_key_id.as_deref(), Some("k"));
    let (complaint, _) = s3("server_side_encryption = 'aes256'\n").complaint();
    assert!(
        complaint.contains("expected one of AES256, aws:kms"),
        "{complaint}"
    );
}

#[test]
fn a_session_token_of_a_lower_layer_does_not_join_the_key_pair_above() {
    let temporary = "AWS_ACCESS_KEY_ID=a\nAWS_SECRET_ACCESS_KEY=b\nAWS_SESSION_TOKEN=c\n";
    let machine = Machine::new().seed(temporary);
    assert!(machine.load().config.s3.session_token.is_some());
    for machine in [
        Machine::new()
            .seed(temporary)
            .file("[s3]\naccess_key_id = 'd'\nsecret_access_key = 'e'\n"),
        Machine::new()
            .seed(temporary)
            .file("[s3]\nsecret_access_key = 'e'\n"),
        Machine::new()
            .seed(temporary)
            .variable("AWS_ACCESS_KEY_ID", "d"),
    ] {
        let loaded = machine.load();
        assert!(loaded.config.s3.session_token.is_none());
        assert!(loaded.warnings[0].contains("environment:3 (AWS_SESSION_TOKEN) is left out"));
        assert_eq!(
            machine.shown("s3.session_token"),
            (None, "default".to_owned())
        );
    }
    let machine = machine.variable("XDB_S3_SESSION_TOKEN", "f");
    assert_eq!(
        machine
            .load()
            .config
            .s3
            .session_token
            .unwrap()
            .expose_secret(),
        "f"
    );
}

#[test]
fn a_child_sees_the_same_whatever_its_files_say() {
    let machine = Machine::new()
        .seed("PGPASSWORD=hunter2\nHOSTNAME=db1\nAWS_SESSION_TOKEN=old\n")
        .file(
            "[s3]\naccess_key_id = 'a'\nsecret_access_key = 'b'\n[archive.settings]\nWALG_A = 1\n",
        )
        .flag("archive.repository", "s3://b/p", "--repository");
    let loaded = machine.load();
    let environment = loaded.to_environment();
    let names: Vec<_> = environment.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "XDB_CONFIG",
            "XDB_ARCHIVE_REPOSITORY",
            "XDB_ARCHIVE_SETTINGS_WALG_A",
            "XDB_NODE_HOSTNAME",
            "XDB_POSTGRES_PASSWORD",
            "XDB_S3_ACCESS_KEY_ID",
            "XDB_S3_SECRET_ACCESS_KEY",
        ]
    );
    assert_eq!(environment[4].1.expose_secret(), "hunter2");

    // The child's own machine: the same seeds, and a file that must not matter.
    let mut child = Machine::new().seed("PGPASSWORD=other\nHOSTNAME=db2\nAWS_SESSION_TOKEN=old\n");
    child.sources.file = ConfigFile::Named(PathBuf::from("/dev/null"));
    for (name, value) in &environment {
        child = child.variable(name, value.expose_secret());
    }
    let seen = |loaded: &Loaded| -> Vec<_> {
        let variables = loaded.to_environment().into_iter();
        variables
            .map(|(name, value)| (name, value.expose_secret().to_owned()))
            .collect()
    };
    assert_eq!(seen(&child.load()), seen(&loaded));
}
