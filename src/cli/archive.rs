//! `xdb archive fill` and `xdb archive acknowledge`, and the way to `status` and `verify`.

use clap::{Args, Subcommand};
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use super::archive_status::status;
use super::archive_verify::{exit, print_verified};
use super::exit::{Exit, complain};
use super::handles::Handles;
use super::operator;
use super::output::say;
use crate::archive::{self, Filled};
use crate::config::Flag;
use crate::repository::{Look, Repository};
use crate::store::StateFiles;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// What waits on this node, how long its volume lasts, and from when to when the bucket leads
    #[command(
        after_help = "Exit codes: 0 good, 1 there is a gap or nothing to go back to, 4 something could not be looked at."
    )]
    Status {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the whole repository, and name the WAL that its backups need and that is missing
    #[command(
        after_help = "Exit codes: 0 no unacknowledged gaps, 1 unacknowledged gaps or other problems, 4 check failed."
    )]
    Verify(Verify),
    /// Store what the archive lacks and this node still holds in pg_wal
    #[command(
        after_help = "Exit codes: 0 nothing is left to store, 1 a file is missing and this node's is not whole, 3 another run is at work, 4 the check failed."
    )]
    Fill {
        /// Verify and list only
        #[arg(long)]
        dry_run: bool,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Say that a loss is known: it stays visible, and is no alarm any more
    Acknowledge(Acknowledge),
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Another repository than the configured one
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    repository: Option<String>,
    /// List only what came since this node last looked: quicker, and blind to what was deleted since
    #[arg(long)]
    cached: bool,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Acknowledge {
    /// The first segment that is lost, as `xdb archive verify` names it
    first: String,
    /// The last one, where there are several
    last: Option<String>,
    /// Why it is lost
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    why: String,
    /// Suppress alerts for this gap until (UTC)
    #[arg(long, value_name = "DATE or TIMESTAMP", value_parser = moment)]
    until: Timestamp,
    /// Who decided so; by default the user before sudo, or who runs this
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    by: Option<String>,
}

impl Verb {
    /// Flags that are configuration.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        match self {
            Self::Verify(verify) => super::repository_flag(verify.repository.as_deref()),
            Self::Status { .. } | Self::Fill { .. } | Self::Acknowledge(_) => Vec::new(),
        }
    }
}

/// `2026-12-31` is its first moment.
fn moment(text: &str) -> Result<Timestamp, String> {
    let date = text.parse::<Date>().map_err(|error| error.to_string());
    let at = text.parse::<Timestamp>().or_else(|_| {
        let start = date?.to_zoned(TimeZone::UTC).map_err(|e| e.to_string())?;
        Ok::<_, String>(start.timestamp())
    })?;
    (at > Timestamp::now())
        .then_some(at)
        .ok_or_else(|| "it is over".to_owned())
}

pub(crate) async fn run(verb: Verb, handles: &Handles) -> anyhow::Result<Exit> {
    let now = Timestamp::now();
    let config = handles.config();
    let state = &config.node.state_directory;
    let data = &config.postgres.data_directory;
    let repository = handles.repository.get().await;
    match verb {
        Verb::Status { json } => status(config, repository, json, now).await,
        Verb::Verify(arguments) => {
            let look = if arguments.cached {
                Look::Since(None)
            } else {
                Look::Whole
            };
            let (_, verified) = repository?.verify(state, look, now).await?;
            if arguments.json {
                say(serde_json::to_string_pretty(&verified)?)?;
            } else {
                print_verified(data, &verified)?;
            }
            Ok(exit(&verified))
        }
        Verb::Fill { dry_run, json } => {
            fill(&repository?, &StateFiles::of(state), dry_run, json).await
        }
        Verb::Acknowledge(said) => {
            let last = said.last.as_deref().unwrap_or(&said.first);
            let by = operator::name(said.by);
            let (segments, who) = ((&*said.first, last), (&*by, &*said.why));
            let until = (now, said.until);
            let known = repository?.acknowledge(state, segments, who, until).await?;
            say(format_args!(
                "{} to {}: {}",
                known.first,
                known.last,
                known.told()
            ))?;
            Ok(Exit::Good)
        }
    }
}

async fn fill(
    repository: &Repository,
    state: &StateFiles,
    dry_run: bool,
    json: bool,
) -> anyhow::Result<Exit> {
    let filled = archive::fill(repository, state, dry_run).await?;
    if json {
        say(serde_json::to_string_pretty(&filled)?)?;
    } else {
        print_filled(&filled, dry_run)?;
    }
    Ok(if filled.idle.is_some() {
        Exit::CouldNot
    } else if filled.kept.is_empty() {
        Exit::Good
    } else {
        Exit::Bad
    })
}

fn print_filled(filled: &Filled, dry_run: bool) -> std::io::Result<()> {
    let verb = if dry_run { "would store" } else { "stored" };
    for name in &filled.stored {
        say(format_args!("{verb} {name}"))?;
    }
    for kept in &filled.kept {
        say(format_args!("not stored: {}: {}", kept.name, kept.reason))?;
    }
    match &filled.idle {
        Some(reason) => complain(
            reason,
            Some("the primary's daemon sets the mark, each ten seconds"),
        ),
        None if filled.stored.is_empty() && filled.kept.is_empty() => {
            say("the archive lacks nothing that this node holds")?;
        }
        None => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn until_is_a_date_or_a_moment_that_is_to_come() {
        let midnight = "2999-12-31T00:00:00Z".parse().unwrap();
        assert_eq!(moment("2999-12-31"), Ok(midnight));
        assert_eq!(moment("2999-12-31T00:00:00Z"), Ok(midnight));
        for wrong in ["", "soon", "30d", "2020-01-01"] {
            assert!(moment(wrong).is_err(), "{wrong:?}");
        }
    }
}
