//! Reads a definition's TOML; a wrong or unknown key is an error that names its file.

use toml_edit::Document;

use super::definition::BuiltInMeasure;
use super::keys::Keys;
use super::parse_measured::{parse_measure, parse_show, parse_sql};
use super::shipped::SHIPPED;
use super::{Definition, DefinitionError, Kind, LagLimits, Role};
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
    let mut keys = Keys::new(file, text, document.as_table());
    let title = keys.required("title")?.to_owned();
    let kind = parse_kind(&mut keys)?;
    let role = match keys.text("role")? {
        None | Some("any") => Role::Any,
        Some("primary") => Role::Primary,
        Some("replica") => Role::Replica,
        Some(other) => return Err(keys.expected("role", other, "primary, replica or any")),
    };
    // PostgreSQL down follows from no role, and what hides behind it would be raised by itself.
    if role != Role::Any && matches!(kind, Kind::PostgresqlUp | Kind::PgBouncerUp) {
        let message = format!("{} is judged on each node: leave the role out", kind.word());
        return Err(keys.wrong("role", message));
    }
    if let Some(kind_of_shipped) = other_kind_of_shipped(name, text) {
        let message = format!(
            "the packaged check {name} is of kind {kind_of_shipped}: give yours another name"
        );
        return Err(keys.wrong("kind", message));
    }
    let hold = keys.duration("for")?;
    let interval = keys.duration("interval")?;
    let runbook = keys.text("runbook")?.map(str::to_owned);
    keys.finish()?;
    Ok(Definition {
        name: name.to_owned(),
        origin: None,
        title,
        kind,
        role,
        hold,
        interval,
        runbook: runbook.or_else(|| shipped_runbook(name)),
    })
}

/// The kind of the shipped check `name`, where `text` is of another one: alerts and what hides them rest on it.
fn other_kind_of_shipped(name: &str, text: &str) -> Option<String> {
    let kind_in = |text: &str| {
        let document = Document::parse(text).ok()?;
        let kind = document.get("kind")?.as_str()?;
        Some(kind.to_owned())
    };
    let (_, shipped) = SHIPPED.iter().find(|(shipped, _)| *shipped == name)?;
    let shipped = kind_in(shipped)?;
    (kind_in(text)? != shipped).then_some(shipped)
}

/// A check of the operator's own has a runbook where its file names one.
fn shipped_runbook(name: &str) -> Option<String> {
    let mut shipped = SHIPPED.iter();
    let is_shipped = shipped.any(|(shipped, _)| *shipped == name);
    is_shipped.then(|| format!("runbooks/{name}.md"))
}

fn measured(source: BuiltInMeasure, keys: &mut Keys) -> Result<Kind, DefinitionError> {
    let measure = parse_measure(keys)?;
    Ok(Kind::Measured { source, measure })
}

fn parse_kind(keys: &mut Keys) -> Result<Kind, DefinitionError> {
    Ok(match keys.required("kind")? {
        "sql" => Kind::Sql(parse_sql(keys)?),
        "pgbouncer" => Kind::PgBouncer(parse_show(keys)?),
        "disk" => measured(BuiltInMeasure::Disk, keys)?,
        "disk_forecast" => measured(BuiltInMeasure::DiskForecast, keys)?,
        "certificate" => measured(BuiltInMeasure::Certificate, keys)?,
        "clock_skew" => measured(BuiltInMeasure::ClockSkew, keys)?,
        "settings_drift" => measured(BuiltInMeasure::SettingsDrift, keys)?,
        "version_drift" => measured(BuiltInMeasure::VersionDrift, keys)?,
        "timeline" => measured(BuiltInMeasure::Timeline, keys)?,
        "pgbouncer_version" => measured(BuiltInMeasure::PgBouncerVersion, keys)?,
        "haproxy_routes" => measured(BuiltInMeasure::HaproxyRoutes, keys)?,
        "anomaly" => {
            let job = match keys.required("job")? {
                job @ ("base-backup" | "dump") => job.to_owned(),
                other => return Err(keys.expected("job", other, "base-backup or dump")),
            };
            measured(BuiltInMeasure::Anomaly { job }, keys)?
        }
        "archiver" => Kind::Archiver {
            limits: keys.limits()?,
        },
        "replication_lag" => Kind::ReplicationLag {
            limits: LagLimits {
                bytes: keys.limits_of("warning_bytes", "critical_bytes")?,
                secs: keys.limits_of("warning_secs", "critical_secs")?,
            },
            delayed: keys
                .texts("delayed")?
                .into_iter()
                .map(str::to_owned)
                .collect(),
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
            let kinds = "sql, pgbouncer, disk, disk_forecast, certificate, clock_skew, settings_drift, version_drift, timeline, pgbouncer_version, haproxy_routes, anomaly, archiver, replication_lag, age, wal_volume, program, postgresql_up, pgbouncer_up or configuration";
            return Err(keys.expected("kind", other, kinds));
        }
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::checks::Limits;

    #[test]
    fn a_definition_is_read() {
        let text = "title = 't'\nkind = 'archiver'\nrole = 'primary'\n\
                    warning = 80\ncritical = 95.5\nfor = '1m 30s'\ninterval = '5m'\nrunbook = 'https://wiki/x'";
        assert_eq!(
            parse("x", "x.toml", text).unwrap(),
            Definition {
                name: "x".to_owned(),
                origin: None,
                title: "t".to_owned(),
                kind: Kind::Archiver {
                    limits: Limits {
                        warning: Some(80.0),
                        critical: Some(95.5),
                        ..Limits::default()
                    },
                },
                role: Role::Primary,
                hold: Duration::from_secs(90),
                interval: Duration::from_secs(300),
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
