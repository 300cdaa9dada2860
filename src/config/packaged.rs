//! Holds `packaging/xdb.toml` to the table of keys: no key missing, no default or description stale.

use std::collections::BTreeMap;

use super::key::{Key, Preset};
use super::keys::KEYS;
use super::*;

const PACKAGED: &str = include_str!("../../packaging/xdb.toml");

/// The file with every `#key = value` in force.
fn uncommented() -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(key) if key.starts_with(|c: char| c.is_ascii_alphabetic()) => format!("{key}\n"),
        _ => format!("{line}\n"),
    };
    PACKAGED.lines().map(line).collect()
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
    let loaded = load_text(PACKAGED);
    assert!(
        loaded
            .effective()
            .iter()
            .all(|effective| effective.source == Source::Default)
    );
}

#[test]
fn uncommented_it_sets_every_key_in_order_to_its_default_or_example() {
    let loaded = load_text(&uncommented());
    let keys: Vec<_> = loaded
        .effective()
        .into_iter()
        .filter(|it| !it.key.starts_with("archive.settings."))
        .collect();
    assert_eq!(keys.len(), KEYS.len());
    let mut last = 0;
    for (effective, key) in keys.into_iter().zip(KEYS) {
        let Source::File { line, .. } = effective.source else {
            panic!("{} is not in packaging/xdb.toml", key.name)
        };
        assert!(line > last, "{} is out of order", key.name);
        last = line;
        let written = format!("#{} = {}", key.leaf(), key.kind.literal(key.example()));
        assert_eq!(
            PACKAGED.lines().nth(line - 1),
            Some(written.as_str()),
            "{}",
            key.name
        );
        assert_eq!(comment_above(line), comment(key), "{}", key.name);
    }
    // Everything in the typed configuration comes from some key.
    assert!(!format!("{:?}", loaded.config).contains("None"));
}

/// The lines right above line `line`.
fn comment_above(line: usize) -> Vec<&'static str> {
    let lines: Vec<_> = PACKAGED.lines().take(line - 1).collect();
    let mut above: Vec<_> = lines
        .into_iter()
        .rev()
        .take_while(|line| line.starts_with("# "))
        .collect();
    above.reverse();
    above
}

fn comment(key: &Key) -> Vec<String> {
    let mut lines = vec![format!("# {}", key.about)];
    if !key.seeds.is_empty() {
        lines.push(format!("# Also: {}", key.seeds.join(", ")));
    }
    match key.preset {
        Preset::Text(_) => {}
        Preset::KernelHostName(_) => lines.push("# Example:".to_owned()),
        Preset::Unset(_) => lines.push("# No default. Example:".to_owned()),
    }
    lines
}
