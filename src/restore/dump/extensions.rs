//! What extensions need of the server's settings: the libraries that it preloads, and the settings that they read.
//!
//! Both are taken from this node's live server; their background work is held back, for a scratch server has no room for
//! background workers.

use crate::config::Config;
use crate::postgres::{self, PostgresError};
use crate::restore::configure::quoted;

/// Settings of the live server without which a dump of it may not be restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions {
    /// `shared_preload_libraries`.
    pub libraries: Vec<String>,
    /// Names and values; a custom setting's name has a dot.
    pub settings: Vec<(String, String)>,
}

/// Reads them from the live server of `config`; without one there are none.
pub async fn live_extensions(config: &Config) -> Extensions {
    match read(config).await {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!("the live server's libraries are not known: {error}");
            Extensions::default()
        }
    }
}

async fn read(config: &Config) -> Result<Extensions, PostgresError> {
    // Of a restored value's text, too, depends what these locales say.
    const QUERY: &str = "
        SELECT name, setting FROM pg_catalog.pg_settings
         WHERE name IN ('shared_preload_libraries', 'lc_monetary', 'lc_numeric', 'lc_time')
            OR name LIKE '%.%' AND source IN ('configuration file', 'command line')
         ORDER BY name";
    let what = "which libraries it preloads";
    let failed = |error| PostgresError::Query { what, error };
    let target = (&config.postgres).into();
    let connection = postgres::connect(&target, config.postgres.connect_timeout).await?;
    let mut found = Extensions::default();
    for row in connection.query(QUERY, &[]).await.map_err(failed)? {
        let name: String = row.try_get("name").map_err(failed)?;
        let setting: String = row.try_get("setting").map_err(failed)?;
        if name == "shared_preload_libraries" {
            found.libraries = libraries(&setting);
        } else {
            found.settings.push((name, setting));
        }
    }
    Ok(found)
}

/// The names of a list of libraries, each quoted where it needs that.
fn libraries(list: &str) -> Vec<String> {
    let names = list.split(',').map(|name| name.trim().trim_matches('"'));
    let names = names.filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

impl Extensions {
    /// Lines of a postgresql.conf.
    pub fn to_configuration(&self) -> String {
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

    /// What is left to try after a server did not start for `reason`, and what this node lacks; `None` where nothing is.
    pub fn without(&self, reason: &str) -> Option<(Self, String)> {
        if self.libraries.is_empty() && self.settings.is_empty() {
            return None;
        }
        let is_named = |name: &&String| reason.contains(name.as_str());
        let (named, others): (Vec<&String>, Vec<&String>) =
            self.libraries.iter().partition(is_named);
        if named.is_empty() {
            return Some((Self::default(), reason.to_owned()));
        }
        let left = Self {
            libraries: others.into_iter().cloned().collect(),
            settings: self.settings.clone(),
        };
        Some((left, reason.to_owned()))
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
        let (left, lacks) = all.without(reason).unwrap();
        assert_eq!(left.libraries, ["pg_stat_statements"]);
        assert_eq!((left.settings.len(), lacks.as_str()), (1, reason));
        // Of a reason that names none, all of them may be the cause.
        let (left, _) = left.without("FATAL:  invalid locale").unwrap();
        assert_eq!(left, Extensions::default());
        assert_eq!(left.without("FATAL:  no room"), None);
        assert!(libraries("").is_empty());
    }
}
