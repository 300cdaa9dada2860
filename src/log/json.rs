//! The platform's log format: one JSON object a line, the fixed keys first and in order, extras flat behind them.
//!
//! `{"timestamp":"2026-05-13T10:14:29Z","level":"info","service":"xdb","component":"archive","hostname":"db1","message":"…", …}`

use std::fmt::{self, Write as _};
use std::io::Write;

use jiff::Timestamp;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;

/// Writes each event as one line to what `writer` makes.
pub struct JsonLayer<W> {
    hostname: String,
    writer: W,
}

impl<W> JsonLayer<W> {
    pub fn new(hostname: &str, writer: W) -> Self {
        Self {
            hostname: hostname.to_owned(),
            writer,
        }
    }
}

impl<S: Subscriber, W: for<'w> MakeWriter<'w> + 'static> Layer<S> for JsonLayer<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let line = line(
            Timestamp::now(),
            metadata.level(),
            metadata.target(),
            &self.hostname,
            fields,
        );
        // A full disk must not stop what is being logged.
        let _ = self
            .writer
            .make_writer_for(metadata)
            .write_all(line.as_bytes());
    }
}

/// The room that logs: `xdb::archive::push` is `archive`.
fn component(target: &str) -> &str {
    target
        .strip_prefix("xdb::")
        .unwrap_or(target)
        .split("::")
        .next()
        .unwrap_or(target)
}

fn line(at: Timestamp, level: &Level, target: &str, hostname: &str, fields: Fields) -> String {
    let at = at.strftime("%FT%TZ").to_string();
    let level = level.as_str().to_ascii_lowercase();
    let fixed = [
        ("timestamp", at.as_str()),
        ("level", level.as_str()),
        ("service", "xdb"),
        ("component", component(target)),
        ("hostname", hostname),
        ("message", fields.message.as_str()),
    ];
    let mut line = String::from("{");
    for (name, value) in fixed {
        let _ = write!(line, "{}:{},", Value::from(name), Value::from(value));
    }
    for (name, value) in &fields.extras {
        // A reader would see one of two keys of the same name.
        if !fixed.iter().any(|(taken, _)| taken == name) {
            let _ = write!(line, "{}:{value},", Value::from(*name));
        }
    }
    line.pop();
    line.push_str("}\n");
    line
}

#[derive(Default)]
struct Fields {
    message: String,
    extras: Vec<(&'static str, Value)>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        if field.name() == "message" {
            self.message = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
        } else {
            self.extras.push((field.name(), value));
        }
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::layer::SubscriberExt;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_has_the_platforms_keys_in_order_and_its_extras_flat() {
        let kept = Kept::default();
        let writer = kept.clone();
        let layer = JsonLayer::new("db1", move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(target: "xdb::archive::push", segment = "0001", bytes = 7_u64, level = "mine", "stored \"it\"\n");
        });
        let line = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let (timestamp, rest) = line.split_once(",\"level\"").unwrap();
        assert!(
            timestamp.starts_with("{\"timestamp\":\"20") && timestamp.ends_with("Z\""),
            "{line}"
        );
        assert_eq!(
            rest,
            ":\"info\",\"service\":\"xdb\",\"component\":\"archive\",\"hostname\":\"db1\",\
             \"message\":\"stored \\\"it\\\"\\n\",\"segment\":\"0001\",\"bytes\":7}\n"
        );
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["message"], "stored \"it\"\n");
    }
}
