//! `[[notify]]`: one table for each receiver of alerts beside Redis.
//!
//! ```toml
//! [[notify]]
//! name = "pager"
//! format = "pagerduty"
//! url = "https://events.pagerduty.com/v2/enqueue"
//! token_file = "/etc/xdb/pagerduty.key"
//! minimum_severity = "critical"
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml_edit::{Item, TableLike};

use super::error::Problem;
use super::kind::{SettingValue, ValueKind};
use super::receivers::{Endpoint, HEARTBEAT, Notify, NotifyFormat, REDIS};
use super::source::{Assignment, SettingSource};
use super::table::Field;
use crate::model::Severity;

/// The name of the tables, and with a dot the beginning of their keys.
pub(super) const NOTIFY: &str = "notify";

/// The keys of a table, with an example.
const KEYS: [(&str, ValueKind, &str); 6] = [
    ("name", ValueKind::Name, "pager"),
    (
        "format",
        ValueKind::Choice(&["json", "slack", "pagerduty", "alertmanager"]),
        "slack",
    ),
    ("url", ValueKind::Endpoint, "/etc/xdb/slack.url"),
    ("token_file", ValueKind::Path, "/etc/xdb/pagerduty.key"),
    (
        "minimum_severity",
        ValueKind::Choice(&["unknown", "warning", "critical"]),
        "critical",
    ),
    ("ca_cert_file", ValueKind::Path, "/etc/xdb/receivers-ca.pem"),
];
const NEEDED: [&str; 3] = ["name", "format", "url"];

/// Whether the value of the dotted `key` must stay hidden.
pub(super) fn is_secret(key: &str) -> bool {
    key.starts_with("notify.") && key.ends_with(".url")
}

/// Reads all tables. Each value becomes an assignment to `notify.{name}.{key}`.
pub(super) fn read(
    item: &Item,
    source_of: impl Fn(&dyn TableLike, &str) -> SettingSource,
    text_of: impl Fn(ValueKind, &Item) -> Option<String>,
    given: &mut Vec<Assignment>,
    problems: &mut Vec<Problem>,
) {
    let Some(tables) = item.as_array_of_tables() else {
        problems.push(Problem {
            key: NOTIFY.to_owned(),
            message: format!("xdb.toml: {NOTIFY} is a list of tables"),
            hint: "write [[notify]] on a line of its own for each receiver, and its keys below"
                .to_owned(),
        });
        return;
    };
    let mut names = Vec::new();
    for table in tables {
        let mut values = BTreeMap::new();
        let before = problems.len();
        for (leaf, item) in table {
            let source = source_of(table, leaf);
            let Some((_, kind, example)) = KEYS.iter().find(|(name, ..)| *name == leaf) else {
                problems.push(unknown(&source, leaf));
                continue;
            };
            match text_of(*kind, item).filter(|text| kind.parse(text).is_some()) {
                Some(text) => {
                    values.insert(leaf.to_owned(), (text, source));
                }
                None => problems.push(wrong(&source, leaf, *kind, example)),
            }
        }
        if problems.len() > before {
            continue;
        }
        let first = table.iter().next().map(|(leaf, _)| leaf.to_owned());
        let source = source_of(table, first.as_deref().unwrap_or_default());
        if let Some(missing) = NEEDED.iter().find(|needed| !values.contains_key(**needed)) {
            problems.push(incomplete(&source, missing));
            continue;
        }
        let name = values["name"].0.clone();
        if name == REDIS || name.starts_with(HEARTBEAT) {
            problems.push(reserved(&source, &name));
            continue;
        }
        if names.contains(&name) {
            problems.push(twice(&source, &name));
            continue;
        }
        given.extend(values.into_iter().map(|(leaf, (text, source))| Assignment {
            key: format!("{NOTIFY}.{name}.{leaf}"),
            text,
            source,
        }));
        names.push(name);
    }
}

/// The receivers of the chosen assignments, by name.
pub(super) fn receivers(chosen: &BTreeMap<String, Assignment>) -> Vec<Notify> {
    let names = chosen
        .keys()
        .filter_map(|key| key.strip_prefix("notify.")?.strip_suffix(".name"));
    let receiver = |name: &str| {
        let value = |leaf: &str| -> Option<SettingValue> {
            let (_, kind, _) = KEYS.iter().find(|(name, ..)| *name == leaf)?;
            let given = chosen.get(&format!("{NOTIFY}.{name}.{leaf}"))?;
            kind.parse(&given.text)
        };
        let severity = String::from_value(value("minimum_severity"));
        let severity = severity.and_then(|word| Severity::parse(&word).ok());
        Some(Notify {
            name: name.to_owned(),
            format: NotifyFormat::named(&String::from_value(value("format"))?)?,
            url: Endpoint::from_value(value("url"))?,
            token_file: PathBuf::from_value(value("token_file")),
            minimum_severity: severity.unwrap_or(Severity::Unknown),
            ca_cert_file: PathBuf::from_value(value("ca_cert_file")),
        })
    };
    names.filter_map(receiver).collect()
}

fn key_of(leaf: &str) -> String {
    format!("{NOTIFY}.{leaf}")
}

fn unknown(source: &SettingSource, leaf: &str) -> Problem {
    let names = KEYS.map(|(name, ..)| name);
    Problem {
        key: key_of(leaf),
        message: format!("{source}: there is no key {leaf} in [[{NOTIFY}]]"),
        hint: format!("[[{NOTIFY}]] has {}", names.join(", ")),
    }
}

fn wrong(source: &SettingSource, leaf: &str, kind: ValueKind, example: &str) -> Problem {
    Problem {
        key: key_of(leaf),
        message: format!(
            "{source}: {leaf} in [[{NOTIFY}]] is not {}",
            kind.expected()
        ),
        hint: format!("for example {leaf} = {example:?}"),
    }
}

fn incomplete(source: &SettingSource, missing: &str) -> Problem {
    Problem {
        key: key_of(missing),
        message: format!("{source}: a table [[{NOTIFY}]] has no {missing}"),
        hint: format!("each needs {}", NEEDED.join(", ")),
    }
}

fn reserved(source: &SettingSource, name: &str) -> Problem {
    Problem {
        key: key_of("name"),
        message: format!(
            "{source}: a table [[{NOTIFY}]] is named {name}, a name that xdb uses itself"
        ),
        hint: format!("choose a name other than {REDIS} that does not begin with {HEARTBEAT}"),
    }
}

fn twice(source: &SettingSource, name: &str) -> Problem {
    Problem {
        key: key_of("name"),
        message: format!("{source}: two tables [[{NOTIFY}]] are named {name}"),
        hint: "give each receiver a name of its own".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::load_to_serve;
    use super::super::tests::Machine;

    fn section(name: &str, format: &str) -> String {
        format!(
            "[[notify]]\nname = \"{name}\"\nformat = \"{format}\"\nurl = \"/etc/xdb/{name}.url\"\n"
        )
    }

    #[test]
    fn a_name_that_xdb_uses_itself_is_refused() {
        for name in ["redis", "heartbeat-dump"] {
            let (message, hint) = Machine::new().file(&section(name, "json")).complaint();
            let expected = format!("is named {name}, a name that xdb uses itself");
            assert!(message.contains(&expected), "{message}");
            assert!(hint.contains("choose a name other than redis"), "{hint}");
        }
        let loaded = Machine::new().file(&section("heartbeats", "json")).load();
        assert_eq!(loaded.config.notify[0].name, "heartbeats");
    }

    #[test]
    fn a_section_with_a_mistake_is_a_fault_and_takes_no_other_with_it() {
        let text = section("pager", "pagerdudy") + &section("chat", "slack");
        let machine = Machine::new().file(&text);
        let loaded = load_to_serve(&machine.sources).unwrap();
        let names: Vec<_> = loaded.config.notify.iter().map(|it| &it.name).collect();
        assert_eq!(names, ["chat"]);
        assert_eq!(loaded.faults.len(), 1, "{:?}", loaded.faults);
    }

    #[test]
    fn a_child_gets_neither_receivers_nor_heartbeat_urls() {
        let text = section("pager", "json") + "[heartbeat]\ndump = \"http://hooks.example/hush\"\n";
        let loaded = Machine::new().file(&text).load();
        let environment = loaded.to_environment();
        assert!(
            environment.iter().all(|(name, _)| {
                !name.starts_with("XDB_HEARTBEAT") && !name.starts_with("XDB_NOTIFY")
            }),
            "{environment:?}"
        );
        assert!(loaded.config.heartbeat.dump.is_some());
    }
}
