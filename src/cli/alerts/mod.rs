//! `xdb alerts`: what stands, what happened, and what people decide about it.

mod attempt;
mod nodes;
mod show;
mod silence;

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::{Span, SpanRelativeTo, Timestamp};

use super::exit::{Exit, complain};
use super::handles::Handles;
use crate::alerts::{Alert, Published};
use crate::config::Notify;
use crate::log;
use crate::model::{AlertKey, AlertState, Severity, Silence};
use crate::redis::Redis;
use crate::store::{Reader, StoreError};

#[derive(Debug, Args)]
#[command(
    after_help = "An alert is named by check/node/object, as `xdb alerts list` prints it; * stands for any text, and parts that are left out match anything.\n\
                  Exit codes: 0 done, 1 a test was not delivered, 2 usage, 3 no such alert or silence, 4 Redis could not be read or written."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Print it as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the alerts that stand, and the silences in force (the default)
    List,
    /// Print each event as it happens, until interrupted
    Watch,
    /// List the last events
    History {
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Acknowledge alerts: no reminders until they worsen or end
    Ack {
        /// Which alerts, as check/node/object
        #[arg(value_parser = parse_pattern)]
        alert: String,
        #[command(flatten)]
        said: Said,
    },
    /// Silence alerts for a while, or all of a node that is being maintained
    Silence(silence::Arguments),
    /// Send a test event to Redis and to the receivers of [[notify]]
    Test {
        /// To this receiver alone
        #[arg(long, value_name = "NAME")]
        receiver: Option<String>,
    },
    /// End a silence or an acknowledgement
    Unsilence {
        /// As `xdb alerts list` shows it
        id: String,
        /// Who ends it [default: the account that runs this]
        #[arg(long, value_name = "NAME", value_parser = parse_author)]
        author: Option<String>,
    },
}

/// Who decides, and why.
#[derive(Debug, Args)]
struct Said {
    /// Why, in 1000 characters at most
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = parse_comment)]
    comment: String,
    /// Who decides this [default: the account that runs this]
    #[arg(long, value_name = "NAME", value_parser = parse_author)]
    author: Option<String>,
}

pub(crate) async fn run(arguments: Arguments, handles: &Handles) -> anyhow::Result<Exit> {
    let config = handles.config();
    let redis = Redis::new(&config.redis)?;
    let context = VerbContext {
        hostname: &config.node.hostname,
        state_directory: &config.node.state_directory,
        cluster: &config.cluster.name,
        peers: &config.cluster.peers,
        notify: &config.notify,
        published: Published::new(&redis, &config.cluster.name),
        json: arguments.json,
    };
    match arguments.verb.unwrap_or(Verb::List) {
        Verb::List => context.list().await,
        Verb::Watch => context.watch().await,
        Verb::History { limit } => context.history(limit).await,
        Verb::Ack { alert, said } => context.acknowledge(&alert, said).await,
        Verb::Silence(arguments) => context.silence(arguments).await,
        Verb::Test { receiver } => context.test(receiver).await,
        Verb::Unsilence { id, author } => context.unsilence(&id, author).await,
    }
}

/// What every one of the verbs uses.
struct VerbContext<'a> {
    hostname: &'a str,
    state_directory: &'a Path,
    cluster: &'a str,
    /// As configured, `host:port`.
    peers: &'a [String],
    notify: &'a [Notify],
    published: Published<'a>,
    json: bool,
}

/// What this node's store holds: alerts, pending ones included, and silences.
type Own = (Vec<(AlertKey, AlertState)>, Vec<Silence>);

/// The alerts of the cluster, or of this node alone.
struct Known {
    alerts: Vec<Alert>,
    silences: Vec<Silence>,
    /// Why they are not the cluster's.
    unread: Option<String>,
}

impl VerbContext<'_> {
    /// What Redis holds, with what this node has not delivered yet.
    async fn known(&self) -> Known {
        let asked = async {
            let alerts = self.published.alerts().await?;
            Ok((alerts, self.published.silences().await?))
        };
        let (alerts, silences, unread) = match asked.await {
            Ok((alerts, silences)) => (alerts, silences, None),
            Err(error) => (Vec::new(), Vec::new(), Some(not_read(&error))),
        };
        let mut known = Known {
            alerts,
            silences,
            unread,
        };
        match self.own() {
            Ok(own) => self.add(&mut known, own),
            Err(error) => tracing::debug!("this node's own state: {}", log::chain(&error)),
        }
        known
    }

    fn own(&self) -> Result<Own, StoreError> {
        let Some(reader) = Reader::open(self.state_directory)? else {
            return Ok(Default::default());
        };
        let reading = reader.reading();
        Ok((reading.alerts()?, reading.silences()?))
    }

    fn add(&self, known: &mut Known, (own, silences): Own) {
        for (key, state) in own.iter().filter(|(_, state)| state.raised_at.is_some()) {
            if !known.alerts.iter().any(|alert| alert.key() == *key) {
                let alert = Alert::new(key, state, self.hostname);
                known.alerts.push(alert);
            }
        }
        known.alerts.sort_by_key(Alert::key);
        for silence in silences {
            let mut held = known.silences.iter_mut();
            match held.find(|held| held.id == silence.id) {
                Some(held) => *held = held.clone().merge(silence),
                None => known.silences.push(silence),
            }
        }
        known
            .silences
            .sort_by(|one, other| (one.created_at, &one.id).cmp(&(other.created_at, &other.id)));
    }
}

fn not_read(error: &crate::redis::RedisError) -> String {
    format!("{}; HINT: {}", log::chain(error), error.hint())
}

/// Says on standard error that a list is of this node alone.
fn say_unread(unread: Option<&String>) -> Exit {
    let Some(reason) = unread else {
        return Exit::Good;
    };
    let (reason, hint) = reason.split_once("; HINT: ").unwrap_or((reason, ""));
    complain(
        &format!("the cluster's alerts cannot be read: {reason}"),
        Some(&format!("{hint}\nthe list is of this node alone")),
    );
    Exit::CouldNot
}

/// `90s`, `2h`, `3d` and the like: more than zero, and at most [`silence::LONGEST`].
fn parse_time(text: &str) -> Result<Duration, String> {
    let expected = || "a time such as 30m, 2h or 3d, of 30 days at most".to_owned();
    let span: Span = text.parse().map_err(|_| expected())?;
    // Without a date, a day has 24 hours.
    let time = span.to_duration(SpanRelativeTo::days_are_24_hours());
    let time = Duration::try_from(time.map_err(|_| expected())?).map_err(|_| expected())?;
    if time.is_zero() || time > silence::LONGEST {
        return Err(expected());
    }
    Ok(time)
}

fn parse_comment(text: &str) -> Result<String, String> {
    parse_line(text, 1000)
}

fn parse_author(text: &str) -> Result<String, String> {
    parse_line(text, 100)
}

fn parse_pattern(text: &str) -> Result<String, String> {
    parse_line(text, 500)
}

/// Each node and Redis keep it, and take no decision that is larger than what these limits add up to.
fn parse_line(text: &str, longest: usize) -> Result<String, String> {
    if text.contains(char::is_control) {
        return Err("write it on one line, without control characters".to_owned());
    }
    let length = text.chars().count();
    if length > longest {
        return Err(format!(
            "it has {length} characters, and {longest} are the limit"
        ));
    }
    Ok(text.to_owned())
}

fn parse_severity(text: &str) -> Result<Severity, String> {
    Severity::parse(text).map_err(|error| error.to_string())
}

fn after(now: Timestamp, time: Duration) -> Timestamp {
    now.checked_add(time).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_of_days_at_most_thirty() {
        for (text, secs) in [
            ("90s", Some(90)),
            ("2h", Some(7200)),
            ("3d", Some(259_200)),
            ("1d12h", Some(129_600)),
            ("30d", Some(2_592_000)),
            ("720h", Some(2_592_000)),
            ("31d", None),
            ("0s", None),
            ("-2h", None),
            ("2", None),
            ("1 month", None),
            ("", None),
        ] {
            let parsed = parse_time(text).ok().map(|time| time.as_secs());
            assert_eq!(parsed, secs, "{text}");
        }
    }

    #[test]
    fn a_comment_that_the_other_node_would_not_take_is_refused() {
        assert_eq!(parse_comment(&"ä".repeat(1000)), Ok("ä".repeat(1000)));
        let error = parse_comment(&"ä".repeat(1001)).unwrap_err();
        assert!(error.contains("1001 characters, and 1000"), "{error}");
        let error = parse_comment("a\nb").unwrap_err();
        assert!(error.contains("one line"), "{error}");
        // The longest of all that is taken here fits into what is read there.
        let silence = Silence {
            v: Silence::VERSION,
            id: "a1b2c3d4".to_owned(),
            of: crate::model::Silenced::Silence {
                pattern: "\u{10ffff}".repeat(500),
            },
            severity: Severity::Critical,
            author: "\u{10ffff}".repeat(100),
            comment: "\u{10ffff}".repeat(1000),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
            ended: Some(crate::model::Ended {
                at: Timestamp::UNIX_EPOCH,
                by: "\u{10ffff}".repeat(100),
            }),
        };
        assert!(silence.to_json().len() <= Silence::LARGEST);
    }
}
