//! `xdb alerts test`: whether events arrive, tried now. The receivers get it at once, ahead of what waits for them.

use jiff::Timestamp;
use serde::Serialize;

use super::{VerbContext, not_read};
use crate::alerts::{Receiver, test_event};
use crate::cli::exit::{Exit, complain};
use crate::cli::operator;
use crate::cli::output::{say, table};
use crate::config::REDIS;
use crate::log;

/// What one receiver did with the event.
#[derive(Serialize)]
struct Tried {
    receiver: String,
    delivered: bool,
    /// Why not, and what to do.
    reason: Option<String>,
}

impl VerbContext<'_> {
    pub(super) async fn test(&self, only: Option<String>) -> anyhow::Result<Exit> {
        let is_meant = |name: &str| only.as_deref().is_none_or(|only| only == name);
        let names = self.notify.iter().map(|notify| notify.name.as_str());
        let mut known = std::iter::once(REDIS).chain(names);
        if !known.any(is_meant) {
            let message = format!(
                "refused: no [[notify]] is named {}",
                only.unwrap_or_default()
            );
            complain(
                &message,
                Some("`xdb config show` lists them as notify.NAME"),
            );
            return Ok(Exit::Refused);
        }
        let event = test_event(self.hostname, &operator::name(None), Timestamp::now());
        let mut tried = Vec::new();
        if is_meant(REDIS) {
            let sent = self.published.write_test(&event).await;
            tried.push(outcome(REDIS, sent.map_err(|error| not_read(&error))));
        }
        for notify in self.notify.iter().filter(|one| is_meant(&one.name)) {
            let receiver = Receiver::new(notify);
            let sent = receiver.send_test(&event, self.cluster).await;
            let sent =
                sent.map_err(|error| format!("{}; HINT: {}", log::chain(&error), error.hint()));
            tried.push(outcome(&notify.name, sent));
        }
        if self.json {
            say(serde_json::to_string_pretty(&tried)?)?;
        } else {
            let rows = tried.iter().map(|one| {
                let word = if one.delivered { "delivered" } else { "FAILED" };
                let reason = one.reason.clone().unwrap_or_default();
                vec![one.receiver.clone(), word.to_owned(), reason]
            });
            say(table(&["RECEIVER", "TEST", "REASON"], &[], rows).trim_fmt())?;
        }
        let all = tried.iter().all(|one| one.delivered);
        Ok(if all { Exit::Good } else { Exit::Bad })
    }
}

fn outcome(receiver: &str, sent: Result<(), String>) -> Tried {
    Tried {
        receiver: receiver.to_owned(),
        delivered: sent.is_ok(),
        reason: sent.err(),
    }
}
