//! The layer rule: reads the `crate::` paths of every file and fails on an arrow that the design does not draw.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms that it may use; what is above is not listed below.
const MAY_USE: &[(&str, &[&str])] = &[
    (
        "cli",
        &[
            "repository",
            "daemon",
            "runner",
            "jobs",
            "restore",
            "archive",
            "dump",
            "wait",
            "alerts",
            "checks",
            "cluster",
            "postgres",
            "storage",
            "redis",
            "store",
            "log",
            "config",
            "model",
        ],
    ),
    (
        "daemon",
        &[
            "repository",
            "runner",
            "jobs",
            "http",
            "alerts",
            "checks",
            "archive",
            "dump",
            "cluster",
            "process",
            "postgres",
            "storage",
            "redis",
            "store",
            "log",
            "config",
            "model",
        ],
    ),
    (
        "runner",
        &[
            "repository",
            "jobs",
            "alerts",
            "checks",
            "cluster",
            "postgres",
            "redis",
            "store",
            "webhook",
            "log",
            "config",
            "model",
        ],
    ),
    (
        "jobs",
        &[
            "repository",
            "checks",
            "archive",
            "dump",
            "restore",
            "cluster",
            "log",
            "config",
            "model",
        ],
    ),
    ("http", &["cluster", "store", "config", "model"]),
    ("cluster", &["postgres", "log", "config", "model"]),
    (
        "restore",
        &[
            "repository",
            "archive",
            "dump",
            "process",
            "postgres",
            "storage",
            "log",
            "config",
            "model",
        ],
    ),
    (
        "archive",
        &[
            "repository",
            "process",
            "postgres",
            "storage",
            "store",
            "log",
            "config",
            "model",
        ],
    ),
    (
        "repository",
        &[
            "process", "postgres", "storage", "store", "log", "config", "model",
        ],
    ),
    (
        "dump",
        &[
            "repository",
            "process",
            "postgres",
            "storage",
            "log",
            "config",
            "model",
        ],
    ),
    (
        "checks",
        &[
            "repository",
            "archive",
            "wait",
            "cluster",
            "process",
            "postgres",
            "pgbouncer",
            "storage",
            "store",
            "log",
            "config",
            "model",
        ],
    ),
    ("pgbouncer", &["postgres", "log", "config", "model"]),
    ("wait", &["postgres", "log", "config", "model"]),
    (
        "alerts",
        &["redis", "store", "webhook", "log", "config", "model"],
    ),
    // Reading a control file is running PostgreSQL's program for it.
    ("postgres", &["process", "log", "config", "model"]),
    ("process", &["log", "config", "model"]),
    ("redis", &["log", "config", "model"]),
    ("store", &["log", "config", "model"]),
    ("storage", &["log", "config", "model"]),
    ("webhook", &["log", "config", "model"]),
    ("log", &["config", "model"]),
    ("config", &["model"]),
    ("model", &[]),
];

/// The same for the rooms of `restore`.
const RESTORE_MAY_USE: &[(&str, &[&str])] = &[
    ("cluster", &["verify", "recover", "plan", "scratch"]),
    ("drill", &["verify", "recover", "plan", "scratch"]),
    ("dump", &["drill", "recover", "plan", "scratch"]),
    ("verify", &["recover", "plan", "scratch"]),
    ("recover", &["plan", "scratch"]),
    ("plan", &["scratch"]),
    ("scratch", &[]),
];

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                rust_files(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn rooms_used(source: &str) -> BTreeSet<String> {
    let uses = source.split("crate::").skip(1);
    let name = |rest: &str| {
        rest.chars()
            .take_while(|c| c.is_ascii_lowercase() || *c == '_')
            .collect::<String>()
    };
    // `use crate::{a, b}` would hide rooms from this reading: one room a line is the rule.
    uses.map(|rest| {
        if rest.starts_with('{') {
            "{".to_owned()
        } else {
            name(rest)
        }
    })
    .collect()
}

#[test]
fn layers_point_down_only() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&source)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        let room = entry.file_name().unwrap().to_str().unwrap().to_owned();
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("the room {room} is not in the layer rule"));
            continue;
        };
        for file in rust_files(&entry) {
            for used in rooms_used(&fs::read_to_string(&file).unwrap()) {
                if used != room && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{}: {room} uses {used}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_rooms_of_restore_point_down_only() {
    let restore = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/restore");
    let mut wrong = Vec::new();
    for (room, allowed) in RESTORE_MAY_USE {
        for file in rust_files(&restore.join(room)) {
            let source = fs::read_to_string(&file).unwrap();
            for (used, _) in RESTORE_MAY_USE {
                let uses = source.contains(&format!("crate::restore::{used}::"));
                if uses && used != room && !allowed.contains(used) {
                    wrong.push(format!("{}: {room} uses {used}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_arrow_is_seen_where_one_is() {
    let used = rooms_used(
        "use crate::config::S3;\nlet x = crate::log::chain(e); use crate::{model, cli};",
    );
    assert_eq!(
        used,
        BTreeSet::from(["config".to_owned(), "log".to_owned(), "{".to_owned()])
    );
}
