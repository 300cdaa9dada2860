//! What stands, and what happened.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::sleep;

use super::{VerbContext, not_read, say_unread};
use crate::alerts::{Alert, Event};
use crate::cli::exit::{Exit, complain};
use crate::cli::output::{say, table};
use crate::model::{Silence, Silenced, ago};

/// Between two looks at the stream.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// `xdb alerts list --json`.
#[derive(Serialize)]
struct Listed<'a> {
    alerts: &'a [Alert],
    /// Those in force.
    silences: &'a [Silence],
}

impl VerbContext<'_> {
    pub(super) async fn list(&self) -> anyhow::Result<Exit> {
        let now = Timestamp::now();
        let mut known = self.known().await;
        known.silences.retain(|silence| silence.is_live(now));
        if self.json {
            let listed = Listed {
                alerts: &known.alerts,
                silences: &known.silences,
            };
            say(serde_json::to_string_pretty(&listed)?)?;
            return Ok(say_unread(known.unread.as_ref()));
        }
        if known.alerts.is_empty() {
            say("no alert stands")?;
        } else {
            let header = ["SEVERITY", "ALERT", "SINCE", "REPORTER", "REASON"];
            let rows = known.alerts.iter().map(|alert| row(alert, now));
            say(table(&header, &[], rows).trim_fmt())?;
        }
        if !known.silences.is_empty() {
            say("")?;
            let header = ["ID", "OF", "UP TO", "UNTIL", "BY", "COMMENT"];
            let rows = known.silences.iter().map(silence_row);
            say(table(&header, &[], rows).trim_fmt())?;
        }
        Ok(say_unread(known.unread.as_ref()))
    }

    pub(super) async fn history(&self, limit: u32) -> anyhow::Result<Exit> {
        let events = self.published.history(limit).await?;
        if self.json {
            say(serde_json::to_string_pretty(&events)?)?;
        } else if events.is_empty() {
            say("no event is in Redis")?;
        } else {
            let header = ["AT (UTC)", "EVENT", "SEVERITY", "ALERT", "REASON"];
            say(table(&header, &[], events.iter().map(event_row)).trim_fmt())?;
        }
        Ok(Exit::Good)
    }

    /// A Redis that goes away is waited for: what happened meanwhile follows.
    pub(super) async fn watch(&self) -> anyhow::Result<Exit> {
        let mut last = self.published.last_id().await?;
        let mut away = false;
        loop {
            match self.published.events_after(&last).await {
                Ok((events, id)) => {
                    last = id;
                    away = false;
                    for event in &events {
                        self.print_event(event)?;
                    }
                }
                Err(error) => {
                    if !away {
                        let reason = not_read(&error);
                        let (reason, hint) = reason.split_once("; HINT: ").unwrap_or((&reason, ""));
                        complain(&format!("waiting for Redis: {reason}"), Some(hint));
                    }
                    away = true;
                }
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn print_event(&self, event: &Event) -> anyhow::Result<()> {
        if self.json {
            return Ok(say(serde_json::to_string(event)?)?);
        }
        Ok(say(event_row(event).join("  "))?)
    }
}

fn reason(alert: &Alert) -> String {
    let marks = alert.marks.to_string();
    let marks = match marks.as_str() {
        "" => String::new(),
        marks => format!(" [{marks}]"),
    };
    format!("{}{marks}", alert.reason)
}

fn row(alert: &Alert, now: Timestamp) -> Vec<String> {
    vec![
        alert.severity.word().to_owned(),
        alert.key().to_string(),
        ago(alert.since, now),
        alert.reporter.clone(),
        reason(alert),
    ]
}

fn event_row(event: &Event) -> Vec<String> {
    vec![
        event.at.strftime("%F %T").to_string(),
        event.kind.word().to_owned(),
        event.alert.severity.word().to_owned(),
        event.alert.key().to_string(),
        reason(&event.alert),
    ]
}

/// What a decision is about, in words.
pub(super) fn about(silence: &Silence) -> String {
    match &silence.of {
        Silenced::Silence { pattern } => pattern.clone(),
        Silenced::Maintenance { node } => format!("maintenance of {node}"),
        Silenced::Acknowledgement { alert, .. } => format!("acknowledged {alert}"),
    }
}

fn silence_row(silence: &Silence) -> Vec<String> {
    let until = match silence.of {
        Silenced::Acknowledgement { .. } => "its end".to_owned(),
        _ => silence.expires_at.strftime("%F %R UTC").to_string(),
    };
    vec![
        silence.id.clone(),
        about(silence),
        silence.severity.word().to_owned(),
        until,
        silence.author.clone(),
        silence.comment.clone(),
    ]
}
