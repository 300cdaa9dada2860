//! The platform's log format: one JSON object a line, the fixed keys first and in order, extras flat behind them.
//!
//! `{"timestamp":"2026-05-13T10:14:29Z","level":"info","service":"xdb","component":"dump","hostname":"db1","message":"…", …}`
//!
//! The component is the job that an event names or happens in (field `job`); `daemon` is everything else.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::{Files, printable, to_stderr};

/// Writes each event as one line to the file of its component, and to standard output.
pub(crate) struct JsonLayer {
    pub(super) hostname: String,
    pub(super) files: Arc<Files>,
    /// At a terminal a person reads text, which another layer writes.
    pub(super) to_stdout: bool,
}

/// What belongs to no job.
const DAEMON: &str = "daemon";

/// The job that a span is about.
struct JobOf(String);

impl<S: Subscriber + for<'s> LookupSpan<'s>> Layer<S> for JsonLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        if let (Some(job), Some(span)) = (fields.job, context.span(id)) {
            span.extensions_mut().insert(JobOf(job));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let span = context.event_scope(event).and_then(|mut spans| {
            spans.find_map(|span| span.extensions().get::<JobOf>().map(|job| job.0.clone()))
        });
        let component = fields.job.clone().or(span);
        let component = component.as_deref().unwrap_or(DAEMON);
        let line = line(
            Timestamp::now(),
            event.metadata().level(),
            component,
            &self.hostname,
            &fields,
        );
        if self.to_stdout {
            // Nobody may be left to read it.
            let _ = std::io::stdout().write_all(line.as_bytes());
        }
        if let Some(told) = self.files.write(component, &line) {
            to_stderr(&format!("xdb: {told}\n"));
        }
    }
}

/// One entry: the fixed keys in the platform's order, then the extras.
pub(super) fn line(
    at: Timestamp,
    level: &Level,
    component: &str,
    hostname: &str,
    fields: &Fields,
) -> String {
    let at = at.strftime("%FT%TZ").to_string();
    let level = level.as_str().to_ascii_lowercase();
    let fixed = [
        ("timestamp", at.as_str()),
        ("level", level.as_str()),
        ("service", "xdb"),
        ("component", component),
        ("hostname", hostname),
        ("message", fields.message.as_str()),
    ];
    let mut line = String::from("{");
    for (name, value) in fixed {
        let _ = write!(line, "{}:{},", json(name), json(value));
    }
    for (name, value) in &fields.extras {
        // A reader would see one of two keys of the same name.
        if !fixed.iter().any(|(taken, _)| taken == name) {
            let _ = write!(line, "{}:{value},", json(name));
        }
    }
    line.pop();
    line.push_str("}\n");
    printable(&line).into_owned()
}

#[derive(Default)]
pub(super) struct Fields {
    pub(super) message: String,
    job: Option<String>,
    /// Each value as JSON.
    extras: Vec<(&'static str, String)>,
}

impl Fields {
    /// Those of an event that only says something.
    pub(super) fn message(message: String) -> Self {
        Self {
            message,
            ..Self::default()
        }
    }

    fn put_text(&mut self, field: &Field, text: &str) {
        if field.name() == "job" && self.job.is_none() {
            self.job = Some(text.to_owned());
        }
        if field.name() == "message" {
            text.clone_into(&mut self.message);
        } else {
            self.extras.push((field.name(), json(text)));
        }
    }

    fn put(&mut self, field: &Field, value: impl Serialize) {
        if field.name() == "message" {
            self.message = json(value);
        } else {
            self.extras.push((field.name(), json(value)));
        }
    }
}

/// As JSON; a number that JSON does not have is null.
fn json(value: impl Serialize) -> String {
    serde_json::to_string(&value).unwrap_or_else(|_| "null".to_owned())
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;

    /// What `log` wrote, by component.
    fn written(component: &str, log: impl FnOnce()) -> String {
        let directory = tempfile::tempdir().unwrap();
        let layer = JsonLayer {
            hostname: "db1".to_owned(),
            files: Arc::new(Files::new(directory.path())),
            to_stdout: false,
        };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let file = directory.path().join(format!("xdb-{component}.log"));
        std::fs::read_to_string(file).unwrap_or_default()
    }

    #[test]
    fn a_line_has_the_platforms_keys_in_order_and_its_extras_flat() {
        let line = written("daemon", || {
            tracing::info!(
                segment = "0001",
                bytes = 7_u64,
                level = "mine",
                "stored \"it\"\n"
            );
        });
        let (timestamp, rest) = line.split_once(",\"level\"").unwrap();
        assert!(
            timestamp.starts_with("{\"timestamp\":\"20") && timestamp.ends_with("Z\""),
            "{line}"
        );
        assert_eq!(
            rest,
            ":\"info\",\"service\":\"xdb\",\"component\":\"daemon\",\"hostname\":\"db1\",\
             \"message\":\"stored \\\"it\\\"\\n\",\"segment\":\"0001\",\"bytes\":7}\n"
        );
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["message"], "stored \"it\"\n");
    }

    #[test]
    fn what_happens_in_a_job_goes_to_the_jobs_own_file() {
        let log = || {
            tracing::info!("of the daemon");
            tracing::info!(job = "checks", "about a job");
            let _job = tracing::info_span!("run", job = "dump").entered();
            tracing::warn!("in a job");
        };
        for (component, message) in [
            ("daemon", "of the daemon"),
            ("checks", "about a job"),
            ("dump", "in a job"),
        ] {
            let lines = written(component, log);
            assert_eq!(lines.lines().count(), 1, "{lines}");
            let read: Value = serde_json::from_str(&lines).unwrap();
            assert_eq!(
                (&read["component"], &read["message"]),
                (&component.into(), &message.into())
            );
        }
    }
}
