//! Writes `packaging/xdb.toml` and `docs/reference/configuration.md` from the table of settings, and fails where they differ.
//!
//! `UPDATE_EXPECT=1 cargo test --lib config::generated` writes both.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::key::{Key, Preset, environment_name};
use super::keys::{KEYS, SECTIONS};
use super::kind::ValueKind;
use super::*;

const PACKAGED: &str = "packaging/xdb.toml";
const REFERENCE: &str = "docs/reference/configuration.md";

const PACKAGED_BEGINS: &str = "\
# The configuration of xdb: every key, commented out, with its default or an example.
#
# One file serves both nodes: what a node does follows the role that PostgreSQL itself reports,
# so a promotion needs no edit here.
#
# Install it as /etc/xdb/xdb.toml, mode 0640, root:postgres. xdb refuses a file that holds a secret
# and that every user may read.
#
# Precedence, lowest first: defaults, the names after \"Also:\" in /etc/environment, the same names in
# xdb's own environment, this file, XDB_... variables (XDB_POSTGRES_PORT is postgres.port), command
# line flags. `xdb config show` prints what holds and where it came from, `xdb config check` everything that is wrong.
";

const PACKAGED_SETTINGS: &str = "
# Further settings that go to the WAL-G program as they are (WALG_..., S3_...), text, number or boolean.
[archive.settings]

# How many uploads run at once. Example:
#WALG_UPLOAD_CONCURRENCY = 16
";

const REFERENCE_BEGINS: &str = "\
# Configuration reference

<!-- Written by `UPDATE_EXPECT=1 cargo test --lib config::generated` from src/config/keys.rs. Do not edit it by hand. -->

xdb reads `/etc/xdb/xdb.toml`, or the file that `--config` or `XDB_CONFIG` names. The sources, lowest rank first:

1. the default;
2. the environment names below, in `/etc/environment`;
3. the same names in xdb's own environment;
4. `xdb.toml`;
5. the `XDB_…` variable of the key;
6. a command line flag.

`xdb config show` prints each value and its source. `xdb config check` prints everything that is wrong.
";

const REFERENCE_SETTINGS: &str = "
## `[archive.settings]`

Further settings that xdb passes to the WAL-G program, such as `WALG_UPLOAD_CONCURRENCY = 16`. A name begins with `WALG_` or
`S3_`, and a value is text, a number or a boolean. The variable of a setting is `XDB_ARCHIVE_SETTINGS_` and its name. What xdb
sets itself, such as `WALG_S3_PREFIX`, is refused.
";

const PACKAGED_NOTIFY: &str = "
# Receivers of alerts beside Redis: a table for each. docs/alerts.md describes the formats and the order of events.
#
#   [[notify]]
#   name = \"pager\"                          # names the receiver in alerts; its events wait under this name
#   format = \"pagerduty\"                    # json, slack, pagerduty or alertmanager
#   url = \"https://events.pagerduty.com/v2/enqueue\"   # or the absolute path of a file that holds it
#   token_file = \"/etc/xdb/pagerduty.key\"   # a bearer token, or PagerDuty's routing key
#   minimum_severity = \"critical\"           # unknown, warning or critical; default: unknown, which is all
#   ca_cert_file = \"/etc/xdb/receivers-ca.pem\"        # default: the system's authorities
";

const REFERENCE_NOTIFY: &str = "
## `[[notify]]`

Receivers of alerts beside Redis: a table for each, in `xdb.toml` alone. [docs/alerts.md](../alerts.md) describes the formats.

| key | value |
|---|---|
| `name` | names the receiver in alerts; its events wait under this name |
| `format` | `json`, `slack`, `pagerduty` or `alertmanager` |
| `url` | a URL that begins with http:// or https://, or the absolute path of a file that holds one. A URL is a secret: the file must not be readable by every user (mode 0640) |
| `token_file` | a file with a bearer token, or with PagerDuty's routing key; optional |
| `minimum_severity` | `unknown` (the default: all), `warning` or `critical` |
| `ca_cert_file` | PEM certificates to verify the receiver with; optional |
";

/// All sections: each begins with `head`, has an `entry` for each key, and `settings` follow `[archive]`.
fn sections(
    head: impl Fn(&str, &str) -> String,
    entry: impl Fn(&Key) -> String,
    settings: &str,
) -> String {
    let mut text = String::new();
    for section in SECTIONS {
        text += &head(section.name, section.about);
        let keys = KEYS.iter().filter(|key| key.section() == section.name);
        text.extend(keys.map(&entry));
        if section.name == "archive" {
            text += settings;
        }
    }
    text
}

fn packaged() -> String {
    let entry = |key: &Key| {
        let mut text = format!("\n# {}\n", key.about);
        if !key.seeds.is_empty() {
            let _ = writeln!(text, "# Also: {}", key.seeds.join(", "));
        }
        text += match key.preset {
            Preset::Default(_) => "",
            Preset::KernelHostName(_) => "# Example:\n",
            Preset::Unset(_) => "# No default. Example:\n",
        };
        let _ = writeln!(
            text,
            "#{} = {}",
            key.leaf(),
            key.kind.literal(key.example())
        );
        text
    };
    let head = |name: &str, about: &str| format!("\n# {about}\n[{name}]\n");
    PACKAGED_BEGINS.to_owned() + &sections(head, entry, PACKAGED_SETTINGS) + PACKAGED_NOTIFY
}

fn reference() -> String {
    let entry = |key: &Key| {
        let literal = key.kind.literal(key.example());
        let default = match key.preset {
            Preset::Default(_) => format!("`{literal}`"),
            Preset::KernelHostName(_) => format!("the kernel's host name, such as `{literal}`"),
            Preset::Unset(_) => format!("none; example: `{literal}`"),
        };
        let secret = match key.kind {
            ValueKind::Secret => {
                "; secret: the file must not be readable by every user (mode 0640)"
            }
            ValueKind::Endpoint => {
                "; a URL is a secret: the file must not be readable by every user (mode 0640)"
            }
            _ => "",
        };
        let mut text = format!(
            "\n### `{}`\n\n{}\n\n- Value: {}{secret}\n- Default: {default}\n- Variable: `{}`\n",
            key.name,
            key.about,
            key.kind.expected(),
            environment_name(key.name),
        );
        if !key.seeds.is_empty() {
            let _ = writeln!(text, "- Environment: `{}`", key.seeds.join("`, `"));
        }
        text
    };
    let head = |name: &str, about: &str| format!("\n## `[{name}]`\n\n{about}\n");
    REFERENCE_BEGINS.to_owned() + &sections(head, entry, REFERENCE_SETTINGS) + REFERENCE_NOTIFY
}

#[test]
fn the_files_are_what_the_table_says() {
    for (name, expected) in [(PACKAGED, packaged()), (REFERENCE, reference())] {
        let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_EXPECT").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "{name} is stale: UPDATE_EXPECT=1 cargo test --lib config::generated"
        );
    }
}

/// The file with every `#key = value` in force.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_alphabetic()) => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn load_text(text: &str) -> Loaded {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("xdb.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let sources = Sources {
        file: ConfigFile::Named(path),
        environment_file: directory.path().join("environment"),
        process: BTreeMap::new(),
        flags: Vec::new(),
    };
    load(&sources).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn as_shipped_it_sets_nothing() {
    let effective = load_text(&packaged()).effective();
    assert!(
        effective
            .iter()
            .all(|it| it.source == SettingSource::Default)
    );
}

#[test]
fn uncommented_it_sets_every_key() {
    let loaded = load_text(&uncommented(&packaged()));
    for effective in loaded.effective() {
        let is_of_file = matches!(effective.source, SettingSource::File { .. });
        assert!(is_of_file, "{}", effective.key);
    }
    // Everything in the typed configuration comes from some key.
    assert!(!format!("{:?}", loaded.config).contains("None"));
}
