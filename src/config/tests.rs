//! The room as a whole: sources in, configuration out, each layer over the one below.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::*;

/// Sources of a machine that has nothing but these.
pub(super) struct Machine {
    pub directory: TempDir,
    pub sources: Sources,
}

impl Machine {
    pub(super) fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let sources = Sources {
            file: ConfigFile::Default(directory.path().join("xdb.toml")),
            environment_file: directory.path().join("environment"),
            process: Default::default(),
            flags: Vec::new(),
        };
        Self { directory, sources }
    }

    pub(super) fn file(self, text: &str) -> Self {
        std::fs::write(self.sources.file.path(), text).unwrap();
        self.mode(0o640)
    }

    pub(super) fn mode(self, mode: u32) -> Self {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.sources.file.path(), permissions).unwrap();
        self
    }

    pub(super) fn seed(self, text: &str) -> Self {
        std::fs::write(&self.sources.environment_file, text).unwrap();
        self
    }

    pub(super) fn variable(mut self, name: &str, value: &str) -> Self {
        self.sources.process.insert(name.to_owned(), value.into());
        self
    }

    pub(super) fn flag(mut self, key: &'static str, value: &str, flag: &'static str) -> Self {
        self.sources.flags.push(Flag {
            key,
            value: value.to_owned(),
            flag,
        });
        self
    }

    pub(super) fn load(&self) -> Loaded {
        load(&self.sources).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The complaint and its hint, without the directory's name.
    pub(super) fn complaint(&self) -> (String, String) {
        let error = load(&self.sources).expect_err("this configuration was taken");
        let directory = format!("{}/", self.directory.path().display());
        let hint = error.hint().unwrap_or_default();
        (
            error.to_string().replace(&directory, ""),
            hint.replace(&directory, ""),
        )
    }

    /// Value and source of `key`, as `xdb config show` prints them.
    pub(super) fn shown(&self, key: &str) -> (Option<String>, String) {
        let directory = format!("{}/", self.directory.path().display());
        let effective = self
            .load()
            .effective()
            .into_iter()
            .find(|effective| effective.key == key)
            .unwrap();
        (
            effective.value,
            effective.source.to_string().replace(&directory, ""),
        )
    }
}

pub(super) fn set(value: &str, source: &str) -> (Option<String>, String) {
    (Some(value.to_owned()), source.to_owned())
}

#[test]
fn nothing_at_all_gives_the_defaults() {
    let machine = Machine::new();
    let loaded = machine.load();
    let effective = loaded.effective();
    let Loaded {
        config, warnings, ..
    } = loaded;
    assert_eq!(
        (config.cluster.name.as_str(), config.cluster.account),
        ("main", None)
    );
    assert_eq!(
        (config.postgres.host.as_str(), config.postgres.port),
        ("/var/run/postgresql", 5432)
    );
    assert_eq!(config.postgres.connect_timeout, Duration::from_secs(5));
    assert_eq!(
        config.archive.repository,
        "s3://walg-{account}/{cluster}/pg{major}"
    );
    assert_eq!(
        config.archive.backup_timeout,
        Duration::from_secs(6 * 60 * 60)
    );
    assert_eq!(
        config.restore_test.directory,
        Path::new("/var/lib/xdb/restore-test")
    );
    assert!(config.postgres.password.is_none() && config.archive.settings.is_empty());
    assert!(!config.node.hostname.is_empty() && !config.s3.force_path_style);
    assert!(
        effective
            .iter()
            .all(|effective| effective.source == SettingSource::Default)
    );
    assert_eq!(warnings, [] as [&str; 0]);
    assert_eq!(machine.shown("s3.region"), (None, "default".to_owned()));
}

#[test]
fn each_layer_hides_the_ones_below_and_says_where_it_is() {
    let key = "s3.region";
    let machine = Machine::new().seed("# seed\nAWS_REGION=one\n");
    assert_eq!(machine.shown(key), set("one", "environment:2 (AWS_REGION)"));
    let machine = machine.variable("AWS_DEFAULT_REGION", "two");
    assert_eq!(machine.shown(key), set("two", "AWS_DEFAULT_REGION"));
    let machine = machine.file("[s3]\n\nregion = 'three'\n");
    assert_eq!(machine.shown(key), set("three", "xdb.toml:3"));
    let machine = machine.variable("XDB_S3_REGION", "four");
    assert_eq!(machine.shown(key), set("four", "XDB_S3_REGION"));
    let machine = machine.flag(key, "five", "--region");
    assert_eq!(machine.shown(key), set("five", "--region"));
    assert_eq!(machine.load().config.s3.region.as_deref(), Some("five"));
}

#[test]
fn what_is_empty_in_an_environment_is_not_set() {
    let machine = Machine::new()
        .seed("AWS_REGION=\nAWS_DEFAULT_REGION=one\nPGPASSWORD=\"\"\n")
        .variable("AWS_REGION", "")
        .variable("XDB_S3_REGION", "");
    assert_eq!(
        machine.shown("s3.region"),
        set("one", "environment:2 (AWS_DEFAULT_REGION)")
    );
    assert_eq!(
        machine.shown("postgres.password"),
        (None, "default".to_owned())
    );
}

#[test]
fn the_proxys_address_in_the_seed_environment_leads_no_backup_astray() {
    let machine = Machine::new()
        .seed("PGHOST=management\nPGPORT=5433\n")
        .variable("PGHOST", "management");
    let postgres = machine.load().config.postgres;
    assert_eq!(
        (postgres.host.as_str(), postgres.port),
        ("/var/run/postgresql", 5432)
    );
}

#[test]
fn a_wrong_seed_matters_only_while_nothing_hides_it() {
    let machine = Machine::new()
        .seed("AWS_ENDPOINT=s3\n")
        .file("[s3]\nendpoint = 'http://s3:9000'\n");
    assert_eq!(
        machine.load().config.s3.endpoint.as_deref(),
        Some("http://s3:9000")
    );
}

#[test]
fn an_environment_file_that_cannot_be_read_is_left_out_aloud() {
    let mut machine = Machine::new();
    machine.sources.environment_file = machine.directory.path().to_owned();
    let warnings = machine.load().warnings;
    assert!(warnings[0].contains("was not read"), "{warnings:?}");
}

#[test]
fn further_settings_are_kept_as_text_and_a_variable_hides_the_file() {
    let machine = Machine::new()
        .file("[archive.settings]\nWALG_A = 1_000\nWALG_B = true\nWALG_C = 'c'\nS3_D = 1.5\nWALG_E = 1\n")
        .variable("XDB_ARCHIVE_SETTINGS_WALG_E", "two")
        .variable("XDB_ARCHIVE_SETTINGS_TOTAL_BG_UPLOADED_LIMIT", "8");
    let settings = machine.load().config.archive.settings;
    let settings: Vec<_> = settings
        .iter()
        .map(|(name, value)| (name.as_str(), value.expose_secret()))
        .collect();
    assert_eq!(
        settings,
        [
            ("S3_D", "1.5"),
            ("TOTAL_BG_UPLOADED_LIMIT", "8"),
            ("WALG_A", "1000"),
            ("WALG_B", "true"),
            ("WALG_C", "c"),
            ("WALG_E", "two"),
        ]
    );
    assert_eq!(
        machine.shown("archive.settings.WALG_E"),
        set("two", "XDB_ARCHIVE_SETTINGS_WALG_E")
    );
    let effective = machine.load().effective();
    let position = |key: &str| {
        effective
            .iter()
            .position(|effective| effective.key == key)
            .unwrap()
    };
    assert!(position("archive.delta_max_steps") < position("archive.settings.S3_D"));
    assert!(position("archive.settings.WALG_E") < position("restore_test.directory"));
}
