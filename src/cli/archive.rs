//! `xdb archive status`, `xdb archive verify`, `xdb archive fill` and `xdb archive acknowledge`.

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};
use serde::Serialize;

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::operator;
use super::output::{say, table};
use crate::archive::{self, Filled};
use crate::config::{Config, Flag};
use crate::log;
use crate::model::{age, ago};
use crate::postgres::{WalDirectory, wal_directory};
use crate::repository::catalog::{Verified, Window};
use crate::repository::{Look, Repository, RepositoryError};
use crate::store::StateFiles;
use std::path::Path;

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

fn exit(verified: &Verified) -> Exit {
    if verified.is_good() {
        Exit::Good
    } else {
        Exit::Bad
    }
}

fn print_verified(data_directory: &Path, verified: &Verified) -> std::io::Result<()> {
    let rows = verified.wal.iter().map(|range| {
        let bytes = ByteSize(range.bytes).to_string();
        let (first, last) = (range.first.clone(), range.last.clone());
        vec![
            range.timeline.to_string(),
            first,
            last,
            range.segments.to_string(),
            bytes,
        ]
    });
    let header = ["TIMELINE", "FROM", "TO", "SEGMENTS", "STORED"];
    say(table(&header, &[0, 3, 4], rows).trim_fmt())?;
    print_wrong(data_directory, verified)?;
    for backup in &verified.unfinished {
        say(format_args!("unfinished: {backup} has no sentinel"))?;
    }
    let well = if verified.is_good() {
        "no unacknowledged gaps; "
    } else {
        ""
    };
    match (&verified.end_unverified, &verified.mark) {
        (Some(reason), _) => say(format_args!("{well}its end is unverified: {reason}")),
        (None, Some(mark)) => say(format_args!(
            "{well}the primary's high-water mark is {mark}"
        )),
        (None, None) => Ok(()),
    }
}

fn print_wrong(data_directory: &Path, verified: &Verified) -> std::io::Result<()> {
    for gap in &verified.gaps {
        let known = gap.acknowledged.as_ref();
        let known = known.map_or_else(String::new, |known| format!("; {}", known.told()));
        let (named, cut_off) = (gap.named(), gap.cuts_off.join(", "));
        let end = if gap.at_end {
            ", the end of what was archived"
        } else {
            ""
        };
        say(format_args!(
            "MISSING: {named}{end}; it cuts off {cut_off}{known}"
        ))?;
        for cut in &gap.cut {
            say(format_args!(
                "HINT: {cut}, too few for a whole segment: delete that object, then `xdb archive fill` on a node whose pg_wal holds it"
            ))?;
        }
        for damaged in &gap.damaged {
            say(format_args!(
                "HINT: {damaged}: move that object out of the bucket, then run `xdb archive fill` on a node whose pg_wal holds it. If none does, run `xdb backup push` now"
            ))?;
        }
        let held = archive::held_here(data_directory, (&gap.first, &gap.last));
        if held > 0 {
            say(format_args!(
                "HINT: pg_wal of this node holds {held} of {}: `xdb archive fill` verifies and stores what is whole",
                gap.segments
            ))?;
        }
    }
    for problem in &verified.problems {
        say(format_args!("WRONG: {problem}"))?;
    }
    Ok(())
}

/// What `xdb archive status` prints; `None` is what could not be looked at.
#[derive(Debug, Serialize)]
struct Status {
    pending_files: Option<u64>,
    pending_bytes: Option<u64>,
    oldest_pending_secs: Option<f64>,
    /// `None` also where too little was written to tell.
    wal_bytes_per_sec: Option<f64>,
    free_bytes: Option<u64>,
    /// Should archiving stand still.
    full_in_secs: Option<f64>,
    /// Of the bucket: the segment that was stored last, and when.
    last_archived: Option<String>,
    last_archived_at: Option<Timestamp>,
    /// Where the newest backup leads.
    window: Option<Window>,
    /// The earliest moment that can be recovered to: the end of the oldest backup that can be restored.
    from: Option<Timestamp>,
    verified: Option<Verified>,
    /// Why something could not be looked at.
    unknown: Vec<String>,
}

async fn status(
    config: &Config,
    repository: Result<Repository, RepositoryError>,
    json: bool,
    now: Timestamp,
) -> anyhow::Result<Exit> {
    let (data, state) = (
        &config.postgres.data_directory,
        &config.node.state_directory,
    );
    let local = wal_directory(data);
    let look = async { repository?.verify(state, Look::Since(None), now).await };
    let bucket = look.await;
    let mut unknown = Vec::new();
    if let Err(error) = &local {
        complain(&log::chain(error), Some(&error.hint()));
        unknown.push(log::chain(error));
    }
    if let Err(error) = &bucket {
        complain(&log::chain(error), Some(&error.hint()));
        unknown.push(log::chain(error));
    }
    let (local, bucket) = (local.ok(), bucket.ok());
    let mut status = Status::of_node(local.as_ref(), now);
    if let Some((catalog, verified)) = bucket {
        let restorable = |backup: &&_| catalog.is_complete(backup);
        let usable = catalog.backups.iter().filter(restorable);
        status.from = usable.filter_map(|backup| backup.finished_at).min();
        let newest = catalog.newest_to_judge();
        status.window = newest.and_then(|newest| catalog.window(newest));
        (status.last_archived, status.last_archived_at) = catalog.wal.last_stored().unzip();
        status.verified = Some(verified);
    }
    status.unknown = unknown;
    if json {
        say(serde_json::to_string_pretty(&status)?)?;
    } else {
        status.print(data, now)?;
    }
    let bad = status.verified.as_ref().is_some_and(|seen| !seen.is_good());
    Ok(match (bad, status.unknown.is_empty()) {
        (true, _) => Exit::Bad,
        (false, false) => Exit::CouldNot,
        (false, true) => Exit::Good,
    })
}

impl Status {
    fn of_node(local: Option<&WalDirectory>, now: Timestamp) -> Self {
        let oldest = local.and_then(|local| local.oldest_pending);
        let until_full = local.and_then(|local| local.until_full(now));
        Self {
            pending_files: local.map(|local| local.pending),
            pending_bytes: local.map(|local| local.pending_bytes),
            oldest_pending_secs: oldest.map(|at| age(at, now).as_secs_f64()),
            wal_bytes_per_sec: local.and_then(|local| local.bytes_per_sec(now)),
            free_bytes: local.map(|local| local.free_bytes),
            full_in_secs: until_full.map(|until| until.as_secs_f64()),
            last_archived: None,
            last_archived_at: None,
            window: None,
            from: None,
            verified: None,
            unknown: Vec::new(),
        }
    }

    fn print(&self, data_directory: &Path, now: Timestamp) -> std::io::Result<()> {
        let unknown = || "unknown".to_owned();
        let waiting = self.pending_files.zip(self.pending_bytes);
        let waiting = waiting.map_or_else(unknown, |(files, bytes)| {
            let oldest = self.oldest_pending_secs;
            let oldest =
                oldest.map_or_else(String::new, |secs| format!(", the oldest for {secs:.0} s"));
            format!("{files} files, {}{oldest}", ByteSize(bytes))
        });
        say(format_args!("waiting        {waiting}"))?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate of bytes"
        )]
        let rate = self.wal_bytes_per_sec.map(|rate| ByteSize(rate as u64));
        let rate = rate.map_or_else(unknown, |rate| format!("{rate}/s"));
        say(format_args!("WAL written    {rate}"))?;
        let full = self.full_in_secs.map(SignedDuration::from_secs_f64);
        let full = full.map_or_else(unknown, |full| format!("{} h", full.as_hours()));
        let free = self
            .free_bytes
            .map_or_else(unknown, |free| ByteSize(free).to_string());
        say(format_args!(
            "volume         {free} free, full in {full} should archiving stand still"
        ))?;
        let last = self.last_archived.as_deref().zip(self.last_archived_at);
        let last = last.map_or_else(unknown, |(name, at)| format!("{name}, {}", ago(at, now)));
        say(format_args!("last archived  {last}"))?;
        let window = self.from.zip(self.window.as_ref());
        let window = window.map_or_else(
            || {
                if self.verified.is_some() {
                    "nothing".to_owned()
                } else {
                    unknown()
                }
            },
            |(from, to)| {
                let from = from.strftime("%F %T UTC");
                format!(
                    "from {from} to {} on timeline {}, archived {}",
                    to.to_lsn,
                    to.timeline,
                    ago(to.to, now)
                )
            },
        );
        say(format_args!("recoverable    {window}"))?;
        self.verified
            .as_ref()
            .map_or(Ok(()), |seen| print_wrong(data_directory, seen))
    }
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
