//! What extensions need of the server's settings: the libraries that it preloads, and the settings that they read.
//!
//! Both are taken from this node's live server; their background work is held back, for a scratch server has no room for
//! background workers.

use crate::config::Postgres;
use crate::postgres::{self, PostgresError};
use crate::restore::recover::{quoted, without_values};

/// Settings of the live server without which a dump of it may not be restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Extensions {
    /// `shared_preload_libraries`.
    pub libraries: Vec<String>,
    /// Names and values; a custom setting's name has a dot.
    pub settings: Vec<(String, String)>,
}

/// Reads them from the live server of `config`; empty without one.
pub(crate) async fn live_extensions(settings: &Postgres) -> Extensions {
    match read(settings).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!("the live server's libraries are not known: {error}");
            Extensions::default()
        }
    }
}

async fn read(settings: &Postgres) -> Result<Extensions, PostgresError> {
    // The text of restored values depends on these locales.
    const QUERY: &str = "
        SELECT name, setting FROM pg_catalog.pg_settings
         WHERE name IN ('shared_preload_libraries', 'lc_monetary', 'lc_numeric', 'lc_time')
            OR name LIKE '%.%' AND source IN ('configuration file', 'command line')
         ORDER BY name";
    let what = "which libraries it preloads";
    let failed = |error| PostgresError::Query { what, error };
    let target = settings.into();
    let connection = postgres::connect(&target, settings.connect_timeout).await?;
    let mut found = Extensions::default();
    for row in connection.query(QUERY, &[]).await.map_err(failed)? {
        let name: String = row.try_get("name").map_err(failed)?;
        let setting: String = row.try_get("setting").map_err(failed)?;
        if name == "shared_preload_libraries" {
            found.libraries = libraries(&setting);
            found.libraries.retain(|name| !only_watches(name));
        } else if !only_watches(&name) {
            found.settings.push((name, setting));
        }
    }
    Ok(found)
}

/// Whether a library, or a setting, only logs statements. No dump needs it, and a statement may hold a password.
fn only_watches(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    name == "auto_explain" || name.starts_with("auto_explain.") || name.starts_with("pgaudit.")
}

/// The names of a list of libraries, each quoted where it needs that.
fn libraries(list: &str) -> Vec<String> {
    let names = list.split(',').map(|name| name.trim().trim_matches('"'));
    let names = names.filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

impl Extensions {
    /// Lines of a postgresql.conf.
    pub(crate) fn to_configuration(&self) -> String {
        let libraries: Vec<String> = self
            .libraries
            .iter()
            .map(|name| format!("\"{name}\""))
            .collect();
        let mut lines = format!(
            "shared_preload_libraries = {}\n",
            quoted(&libraries.join(", "))
        );
        for (name, value) in &self.settings {
            lines.push_str(&format!("{name} = {}\n", quoted(value)));
        }
        lines
    }

    /// The settings to try after a server did not start for `reason`, and a message that names those left out; `None` where
    /// nothing is left to leave out.
    pub(crate) fn without(&self, reason: &str) -> Option<(Self, String)> {
        let mut left = self.clone();
        let is_named = |name: &str| reason.contains(name.rsplit('/').next().unwrap_or(name));
        left.libraries.retain(|name| !is_named(name));
        if left.libraries.len() == self.libraries.len() {
            left.settings
                .retain(|(name, _)| !reason.contains(name.as_str()));
        }
        // A reason that names no setting may be about any of them.
        if left == *self && reason.contains("configuration file") {
            left.settings.clear();
        }
        if left == *self {
            left.libraries.clear();
        }
        if left == *self {
            left.settings.clear();
        }
        let settings = self
            .settings
            .iter()
            .filter(|it| !left.settings.contains(it));
        let libraries = self.libraries.iter();
        let names: Vec<&str> = libraries
            .filter(|it| !left.libraries.contains(it))
            .chain(settings.map(|(name, _)| name))
            .map(String::as_str)
            .collect();
        (left != *self).then(|| {
            let shown = without_values(reason);
            (left, format!("{} left out: {shown}", names.join(", ")))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_this_node_lacks_is_left_out_and_named() {
        let all = Extensions {
            libraries: libraries(r#"pg_stat_statements, "pg_cron""#),
            settings: vec![("cron.database_name".to_owned(), "it's".to_owned())],
        };
        assert_eq!(
            all.to_configuration(),
            "shared_preload_libraries = '\"pg_stat_statements\", \"pg_cron\"'\ncron.database_name = 'it''s'\n"
        );
        let reason = "FATAL:  could not access file \"pg_cron\": No such file or directory";
        let (left, message) = all.without(reason).unwrap();
        assert_eq!(left.libraries, ["pg_stat_statements"]);
        assert_eq!(left.settings.len(), 1);
        assert_eq!(message, format!("pg_cron left out: {reason}"));
        assert!(libraries("").is_empty());
    }

    #[test]
    fn whatever_keeps_the_server_from_starting_less_is_left_each_time() {
        let settings = ["citus.node", "lc_time"].map(|name| (name.to_owned(), "x".to_owned()));
        let all = Extensions {
            libraries: libraries("citus, $libdir/timescaledb, pgaudit"),
            settings: settings.into(),
        };
        let timescaledb = "FATAL:  could not load library \"/lib/timescaledb.so\": cut short";
        for (reasons, libraries, settings) in [
            (&[timescaledb][..], 2, 2),
            (
                &["FATAL:  invalid value for parameter \"lc_time\": \"x\""],
                3,
                1,
            ),
            (&["FATAL:  configuration file \"p\" contains errors"], 3, 0),
            (&["it was killed, signal: 11"], 0, 2),
            (&["it did not start"; 2], 0, 0),
        ] {
            let mut left = all.clone();
            for reason in reasons {
                let (fewer, message) = left.without(reason).unwrap();
                assert!(
                    message.ends_with(&without_values(reason)) && !message.starts_with(' '),
                    "{message}"
                );
                left = fewer;
            }
            let found = (left.libraries.len(), left.settings.len());
            assert_eq!(found, (libraries, settings), "{reasons:?}");
        }
        assert_eq!(Extensions::default().without("FATAL:  no room"), None);
        let secret = "FATAL:  invalid value for parameter \"citus.node\": \"password=secret\"";
        let (_, message) = all.without(secret).unwrap();
        assert!(!message.contains("secret"), "{message}");
    }

    #[test]
    fn what_only_watches_statements_is_not_taken_along() {
        let kept =
            |names: &[&str]| -> usize { names.iter().filter(|name| !only_watches(name)).count() };
        let watching = [
            "auto_explain",
            "$libdir/auto_explain",
            "auto_explain.log_analyze",
            "pgaudit.log",
        ];
        assert_eq!(kept(&watching), 0);
        assert_eq!(
            kept(&["pgaudit", "pg_stat_statements", "cron.database_name"]),
            3
        );
    }
}
