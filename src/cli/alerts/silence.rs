//! Silences, maintenance and acknowledgements: written to Redis and to this node's store, so that either may be away.

use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::show::about;
use super::{Known, Said, VerbContext, after, not_read, parse_pattern, parse_severity, parse_time};
use crate::alerts::Alert;
use crate::cli::exit::{Exit, complain};
use crate::cli::operator;
use crate::cli::output::say;
use crate::log;
use crate::model::{AlertPattern, Ended, Severity, Silence, Silenced};
use crate::store::Store;

/// A silence that lasts longer is forgotten about.
pub(super) const LONGEST: Duration = Duration::from_hours(30 * 24);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Which alerts, as check/node/object
    #[arg(required_unless_present = "maintenance", value_parser = parse_pattern)]
    alerts: Option<String>,
    /// For how long, such as 2h or 3d
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time, required_unless_present = "maintenance")]
    lasts: Option<Duration>,
    /// Silence the node that is being maintained for this time: its alerts, and those of others about it
    #[arg(long, value_name = "TIME", value_parser = parse_time, conflicts_with_all = ["alerts", "lasts", "severity"])]
    maintenance: Option<Duration>,
    /// The node [default: this one]
    #[arg(long, value_name = "NAME", requires = "maintenance")]
    node: Option<String>,
    /// The worst severity to silence [default: that of the alerts that stand now, or warning]
    #[arg(long, value_name = "SEVERITY", value_parser = parse_severity)]
    severity: Option<Severity>,
    #[command(flatten)]
    said: Said,
}

impl VerbContext<'_> {
    pub(super) async fn silence(&self, arguments: Arguments) -> anyhow::Result<Exit> {
        let known = self.known().await;
        let now = Timestamp::now();
        let (of, lasts, severity) = match (arguments.maintenance, arguments.alerts) {
            (Some(lasts), _) => {
                let node = arguments.node;
                let node = node.unwrap_or_else(|| self.hostname.to_owned());
                if let Some(refused) = self.refuse_unknown_node(&node, &known).await {
                    return Ok(refused);
                }
                (Silenced::Maintenance { node }, lasts, Severity::Critical)
            }
            (None, Some(pattern)) => {
                let matching = matching(&known.alerts, &pattern);
                let worst = matching.iter().map(|alert| alert.severity).max();
                let severity = arguments.severity.or(worst).unwrap_or(Severity::Warning);
                let lasts = arguments.lasts.unwrap_or_default();
                (Silenced::Silence { pattern }, lasts, severity)
            }
            (None, None) => return Ok(Exit::Usage),
        };
        let expires_at = after(now, lasts);
        let silence = made(of, severity, arguments.said, (now, expires_at));
        self.keep(&silence).await?;
        if self.json {
            say(serde_json::to_string_pretty(&silence)?)?;
            return Ok(Exit::Good);
        }
        let hidden = known
            .alerts
            .iter()
            .filter(|alert| silence.hides(&alert.key(), alert.severity))
            .count();
        say(format_args!(
            "{}: {} is silenced up to {} until {}; of the alerts that stand it hides {hidden}",
            silence.id,
            about(&silence),
            severity.word(),
            expires_at.strftime("%F %R UTC"),
        ))?;
        Ok(Exit::Good)
    }

    pub(super) async fn acknowledge(&self, pattern: &str, said: Said) -> anyhow::Result<Exit> {
        let known = self.known().await;
        let now = Timestamp::now();
        let matching = matching(&known.alerts, pattern);
        if matching.is_empty() {
            let message = format!("refused: no alert that stands matches {pattern}");
            complain(&message, Some(hint_for(&known)));
            return Ok(Exit::Refused);
        }
        let said = Said {
            author: Some(operator::name(said.author)),
            ..said
        };
        let mut made_now = Vec::new();
        for alert in matching {
            let of = Silenced::Acknowledgement {
                alert: alert.key().to_string(),
                since: alert.since,
            };
            let said = Said {
                comment: said.comment.clone(),
                author: said.author.clone(),
            };
            let silence = made(of, alert.severity, said, (now, after(now, LONGEST)));
            self.keep(&silence).await?;
            if !self.json {
                let key = alert.key();
                say(format_args!("{}: {key} is acknowledged", silence.id))?;
            }
            made_now.push(silence);
        }
        if self.json {
            say(serde_json::to_string_pretty(&made_now)?)?;
        }
        Ok(Exit::Good)
    }

    pub(super) async fn unsilence(&self, id: &str, author: Option<String>) -> anyhow::Result<Exit> {
        let known = self.known().await;
        let now = Timestamp::now();
        let mut live = known.silences.iter().filter(|one| one.is_live(now));
        let Some(silence) = live.find(|one| one.id == id) else {
            let message = format!("refused: no silence or acknowledgement {id} is in force");
            complain(&message, Some(hint_for(&known)));
            return Ok(Exit::Refused);
        };
        let silence = Silence {
            ended: Some(Ended {
                at: now,
                by: operator::name(author),
            }),
            ..silence.clone()
        };
        self.keep(&silence).await?;
        if self.json {
            say(serde_json::to_string_pretty(&silence)?)?;
        } else {
            say(format_args!("{id}: {} is over", about(&silence)))?;
        }
        Ok(Exit::Good)
    }

    /// Writes it to Redis and to this node's store. One of them is enough: the daemons exchange the rest.
    async fn keep(&self, silence: &Silence) -> anyhow::Result<()> {
        let to_redis = self.published.write_silence(silence).await;
        let to_store = self.keep_here(silence.clone()).await;
        match (to_redis, to_store) {
            (Ok(()), Ok(())) => {}
            (Ok(()), Err(error)) => {
                let chain = log::chain(&error);
                tracing::warn!(
                    "this node's state store was not written, so this decision is in Redis alone: {chain}"
                );
            }
            (Err(error), Ok(())) => tracing::warn!(
                "Redis was not written, so this decision is on this node alone until its daemon has passed it on: {}",
                not_read(&error)
            ),
            (Err(error), Err(of_store)) => {
                tracing::warn!(
                    "this node's state store was not written: {}",
                    log::chain(&of_store)
                );
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn keep_here(&self, silence: Silence) -> Result<(), crate::store::StoreError> {
        let store = Store::open(self.state_directory, Timestamp::now())?.store;
        let work = move |writing: &crate::store::Writing<'_>| {
            writing.merge_silence(silence.clone()).map(|_| ())
        };
        store.write(work).await
    }
}

fn hint_for(known: &Known) -> &'static str {
    match known.unread {
        None => "`xdb alerts list` shows what stands",
        Some(_) => {
            "Redis does not answer, so only what this node knows counts: see `xdb alerts list`"
        }
    }
}

fn matching<'a>(alerts: &'a [Alert], pattern: &str) -> Vec<&'a Alert> {
    let pattern = AlertPattern::parse(pattern);
    let matches = |alert: &&Alert| pattern.matches(&alert.key());
    alerts.iter().filter(matches).collect()
}

fn made(
    of: Silenced,
    severity: Severity,
    said: Said,
    (created_at, expires_at): (Timestamp, Timestamp),
) -> Silence {
    let mut silence = Silence {
        v: Silence::VERSION,
        id: String::new(),
        of,
        severity,
        author: operator::name(said.author),
        comment: said.comment,
        created_at,
        expires_at,
        ended: None,
    };
    // Two people on two nodes at the same moment make different ones, or the same one.
    let digest = Sha256::digest(silence.to_json().as_bytes());
    silence.id = hex::encode(&digest[..4]);
    silence
}
