//! Reads a definition's TOML; a wrong or unknown key is an error that names its file.

use std::time::Duration;

use jiff::SignedDuration;
use toml_edit::{Document, Item, TableLike};

use super::program::parse_version;
use super::shipped::SHIPPED;
use super::{Definition, DefinitionError, Kind, LagLimits, Limits, Metric, Oldest, Role};
use crate::model::line_of;

/// Reads the text of the check `name`; `file` is how errors call it.
pub(super) fn parse(name: &str, file: &str, text: &str) -> Result<Definition, DefinitionError> {
    let document = Document::parse(text).map_err(|error| DefinitionError::Toml {
        file: file.to_owned(),
        line: line_of(
            text.as_bytes(),
            error.span().map_or(text.len(), |span| span.start),
        ),
        message: error.message().to_owned(),
    })?;
    let mut keys = Keys {
        file,
        text,
        table: document.as_table(),
        read: Vec::new(),
    };
    let title = keys.required("title")?.to_owned();
    let kind = parse_kind(&mut keys)?;
    let role = match keys.text("role")? {
        None | Some("any") => Role::Any,
        Some("primary") => Role::Primary,
        Some("replica") => Role::Replica,
        Some(other) => return Err(keys.expected("role", other, "primary, replica or any")),
    };
    let hold = keys.duration("for")?;
    let runbook = keys.text("runbook")?.map(str::to_owned);
    keys.finish()?;
    Ok(Definition {
        name: name.to_owned(),
        title,
        kind,
        role,
        hold,
        runbook: runbook.or_else(|| shipped_runbook(name)),
    })
}

/// A check of the operator's own has a runbook where its file names one.
fn shipped_runbook(name: &str) -> Option<String> {
    let mut shipped = SHIPPED.iter();
    let is_shipped = shipped.any(|(shipped, _)| *shipped == name);
    is_shipped.then(|| format!("runbooks/{name}.md"))
}

fn parse_kind(keys: &mut Keys) -> Result<Kind, DefinitionError> {
    Ok(match keys.required("kind")? {
        "sql" => Kind::Sql {
            query: keys.required("query")?.to_owned(),
            unit: keys.text("unit")?.unwrap_or_default().to_owned(),
            limits: keys.limits()?,
        },
        "pgbouncer" => Kind::PgBouncer {
            metric: match keys.required("metric")? {
                "clients_waiting" => Metric::ClientsWaiting,
                "saturation" => Metric::Saturation,
                other => {
                    return Err(keys.expected("metric", other, "clients_waiting or saturation"));
                }
            },
            limits: keys.limits()?,
        },
        "archiver" => Kind::Archiver {
            limits: keys.limits()?,
        },
        "replication_lag" => Kind::ReplicationLag {
            limits: LagLimits {
                bytes: keys.limits_of("warning_bytes", "critical_bytes")?,
                secs: keys.limits_of("warning_secs", "critical_secs")?,
            },
        },
        "age" => Kind::Age {
            job: match keys.required("job")? {
                job @ ("base-backup" | "dump" | "restore-test" | "dump-test") => job.to_owned(),
                other => {
                    let jobs = "base-backup, dump, restore-test or dump-test";
                    return Err(keys.expected("job", other, jobs));
                }
            },
            limits: keys.ages()?,
        },
        "wal_volume" => Kind::WalVolume {
            limits: keys.remaining()?,
        },
        "program" => Kind::Program {
            oldest: vec![keys.oldest("wal-g")?, keys.oldest("walrus")?],
        },
        "postgresql_up" => Kind::PostgresqlUp,
        "pgbouncer_up" => Kind::PgBouncerUp,
        "configuration" => Kind::Configuration,
        other => {
            let kinds = "sql, pgbouncer, archiver, replication_lag, age, wal_volume, program, postgresql_up, pgbouncer_up or configuration";
            return Err(keys.expected("kind", other, kinds));
        }
    })
}

/// A file's keys, and which of them were read.
struct Keys<'a> {
    file: &'a str,
    text: &'a str,
    table: &'a dyn TableLike,
    read: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    fn get(&mut self, key: &'static str) -> Option<&'a Item> {
        self.read.push(key);
        self.table.get(key)
    }

    fn text(&mut self, key: &'static str) -> Result<Option<&'a str>, DefinitionError> {
        let Some(item) = self.get(key) else {
            return Ok(None);
        };
        let text = item.as_str().map(str::trim).filter(|text| !text.is_empty());
        text.map(Some)
            .ok_or_else(|| self.wrong(key, format!("{key} is not text")))
    }

    fn required(&mut self, key: &'static str) -> Result<&'a str, DefinitionError> {
        self.text(key)?
            .ok_or_else(|| self.wrong(key, format!("{key} is missing")))
    }

    fn number(&mut self, key: &'static str) -> Result<Option<f64>, DefinitionError> {
        let Some(item) = self.get(key) else {
            return Ok(None);
        };
        #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
        let number = item
            .as_float()
            .or(item.as_integer().map(|number| number as f64));
        number
            .filter(|number| number.is_finite())
            .map(Some)
            .ok_or_else(|| self.wrong(key, format!("{key} is not a number")))
    }

    fn duration(&mut self, key: &'static str) -> Result<Duration, DefinitionError> {
        let Some(text) = self.text(key)? else {
            return Ok(Duration::ZERO);
        };
        let duration = text.parse::<SignedDuration>().ok();
        duration
            .and_then(|duration| Duration::try_from(duration).ok())
            .ok_or_else(|| self.expected(key, text, "a duration such as 30s or 5m"))
    }

    /// The release in the key `program`.
    fn oldest(&mut self, program: &'static str) -> Result<Oldest, DefinitionError> {
        let text = self.required(program)?;
        let version = parse_version(text);
        let version = version.ok_or_else(|| self.expected(program, text, "a release such as 3.0"));
        Ok(Oldest {
            program,
            version: version?,
        })
    }

    /// At least one of `warning` and `critical`.
    fn limits(&mut self) -> Result<Limits, DefinitionError> {
        self.limits_of("warning", "critical")
    }

    fn limits_of(
        &mut self,
        warning: &'static str,
        critical: &'static str,
    ) -> Result<Limits, DefinitionError> {
        let limits = Limits {
            warning: self.number(warning)?,
            critical: self.number(critical)?,
        };
        self.checked(limits, warning, critical)
    }

    /// [`Keys::limits`] that are durations, as seconds.
    fn ages(&mut self) -> Result<Limits, DefinitionError> {
        let limits = self.durations()?;
        self.checked(limits, "warning", "critical")
    }

    /// The same where less is worse.
    fn remaining(&mut self) -> Result<Limits, DefinitionError> {
        let Limits { warning, critical } = self.durations()?;
        match (warning, critical) {
            (Some(early), Some(late)) if early < late => {
                Err(self.wrong("warning", "warning is below critical".to_owned()))
            }
            (None, None) => {
                Err(self.wrong("warning", "neither warning nor critical is set".to_owned()))
            }
            _ => Ok(Limits { warning, critical }),
        }
    }

    fn durations(&mut self) -> Result<Limits, DefinitionError> {
        let secs = |age: Duration| (!age.is_zero()).then_some(age.as_secs_f64());
        Ok(Limits {
            warning: secs(self.duration("warning")?),
            critical: secs(self.duration("critical")?),
        })
    }

    fn checked(
        &self,
        limits: Limits,
        warning: &str,
        critical: &str,
    ) -> Result<Limits, DefinitionError> {
        match limits {
            Limits {
                warning: None,
                critical: None,
            } => Err(self.wrong(warning, format!("neither {warning} nor {critical} is set"))),
            Limits {
                warning: Some(low),
                critical: Some(high),
            } if low > high => Err(self.wrong(warning, format!("{warning} is above {critical}"))),
            limits => Ok(limits),
        }
    }

    fn finish(self) -> Result<(), DefinitionError> {
        let unknown = self.table.iter().find(|(key, _)| !self.read.contains(key));
        match unknown {
            Some((key, _)) => Err(self.wrong(key, format!("there is no key {key} in this kind"))),
            None => Ok(()),
        }
    }

    fn expected(&self, key: &str, found: &str, expected: &str) -> DefinitionError {
        self.wrong(key, format!("{key} is {found:?}, expected {expected}"))
    }

    fn wrong(&self, key: &str, message: String) -> DefinitionError {
        let span = self.table.get_key_value(key).and_then(|(key, item)| {
            // The key's own place, or that of what it holds.
            key.span().or_else(|| item.span())
        });
        DefinitionError::Wrong {
            file: self.file.to_owned(),
            line: span.map(|span| line_of(self.text.as_bytes(), span.start)),
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_read() {
        let text = "title = 't'\nkind = 'pgbouncer'\nmetric = 'saturation'\nrole = 'primary'\n\
                    warning = 80\ncritical = 95.5\nfor = '1m 30s'\nrunbook = 'https://wiki/x'";
        assert_eq!(
            parse("x", "x.toml", text).unwrap(),
            Definition {
                name: "x".to_owned(),
                title: "t".to_owned(),
                kind: Kind::PgBouncer {
                    metric: Metric::Saturation,
                    limits: Limits {
                        warning: Some(80.0),
                        critical: Some(95.5),
                    },
                },
                role: Role::Primary,
                hold: Duration::from_secs(90),
                runbook: Some("https://wiki/x".to_owned()),
            }
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("", "title is missing"),
            ("title = 1", "title is not text"),
            ("title = 't'", "kind is missing"),
            ("title = 't'\nkind = 'sql'\nwarning = 1", "query is missing"),
            (
                "title = 't'\nkind = 'archiver'",
                "neither warning nor critical is set",
            ),
            (
                "title = 't'\nkind = 'archiver'\nwarning = 2\ncritical = 1",
                "warning is above critical",
            ),
            (
                "title = 't'\nkind = 'archiver'\nwarning = nan",
                "warning is not a number",
            ),
            (
                "title = 't'\nkind = 'postgresql_up'\nfor = 'soon'",
                "for is \"soon\", expected a duration such as 30s or 5m",
            ),
            (
                "title = 't'\nkind = 'postgresql_up'\nrole = 'leader'",
                "role is \"leader\", expected primary, replica or any",
            ),
            (
                "title = 't'\nkind = 'postgresql_up'\nwarning = 1",
                "there is no key warning in this kind",
            ),
            (
                "title = 't'\nkind = 'age'\njob = 'checks'\nwarning = '1h'",
                "job is \"checks\", expected base-backup, dump, restore-test or dump-test",
            ),
            (
                "title = 't'\nkind = 'age'\njob = 'dump'\nwarning = 30",
                "warning is not text",
            ),
            (
                "title = 't'\nkind = 'age'\njob = 'dump'\nwarning = '2h'\ncritical = '1h'",
                "warning is above critical",
            ),
            (
                "title = 't'\nkind = 'wal_volume'\nwarning = '1h'\ncritical = '2h'",
                "warning is below critical",
            ),
            (
                "title = 't'\nkind = 'program'\nwal-g = '3'\nwalrus = '0.4'",
                "wal-g is \"3\", expected a release such as 3.0",
            ),
            ("title = ", "x.toml is not TOML"),
        ] {
            let error = parse("x", "x.toml", text).unwrap_err().to_string();
            assert!(error.contains(words), "{text:?}: {error}");
            assert!(error.starts_with("x.toml"), "{error}");
        }
    }
}
