//! `xdb dump push` and `xdb dump list`.

use std::time::Duration;

use bytesize::ByteSize;
use clap::Subcommand;

use super::exit::{Exit, complain};
use super::output::{say, table};
use crate::config::{Config, Loaded};
use crate::daemon;
use crate::dump::{self, DumpSet, Listed};
use crate::jobs::{self, Job};

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Dump each database and the globals into the bucket, as one set
    Push {
        /// Only this database; may be given again
        #[arg(long, value_name = "NAME")]
        database: Vec<String>,
        /// Print the set's manifest as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the dump sets in the bucket: complete or not, sizes, databases
    List {
        /// Print the list as JSON
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(verb: Verb, loaded: &Loaded) -> anyhow::Result<Exit> {
    let config = &loaded.config;
    match verb {
        Verb::Push { database, json } => {
            // A part of the databases is a dump, but not what the job is for: it must not count as its success.
            let set = if database.is_empty() {
                daemon::run_once(loaded, Job::Dump, jobs::dump(config)).await?
            } else {
                dump::push(config, &database).await?
            };
            if json {
                say(serde_json::to_string_pretty(&set)?)?;
            } else {
                print_set(&set)?;
            }
        }
        Verb::List { json } => {
            let listed = dump::list(config).await?;
            if json {
                say(serde_json::to_string_pretty(&listed)?)?;
            } else if listed.is_empty() {
                say(format_args!("no dump in {}", dump::repository(config)?))?;
            } else {
                print_list(&listed)?;
            }
        }
    }
    Ok(Exit::Good)
}

/// After an interrupted push: removes what it wrote.
pub async fn clean_up(config: &Config) {
    const LIMIT: Duration = Duration::from_secs(20);
    let cleaned = tokio::time::timeout(LIMIT, dump::clean_up(config)).await;
    if !matches!(cleaned, Ok(Ok(()))) {
        complain(
            "a part of the dump may be left in the bucket",
            Some("it does not count as a dump, and the next `xdb dump push` removes it"),
        );
    }
}

fn print_set(set: &DumpSet) -> std::io::Result<()> {
    let rows = set.databases.iter().map(|database| {
        vec![
            database.name.clone(),
            database.rows.len().to_string(),
            database.rows.values().sum::<u64>().to_string(),
            ByteSize(database.dump.bytes).to_string(),
        ]
    });
    let header = ["DATABASE", "TABLES", "ROWS", "STORED"];
    say(table(&header, &[1, 2, 3], rows).trim_fmt())?;
    let elapsed = set.finished_at.duration_since(set.started_at);
    say(format_args!(
        "{} is in the bucket: {} stored, in {:.1} s",
        set.set,
        ByteSize(set.bytes()),
        elapsed.as_secs_f64()
    ))
}

fn print_list(listed: &[Listed]) -> std::io::Result<()> {
    let rows = listed.iter().map(|listed| {
        let databases = listed.manifest.as_ref().map(|manifest| {
            let names = manifest.databases.iter().map(|it| it.name.as_str());
            names.collect::<Vec<_>>().join(", ")
        });
        vec![
            listed.set.clone(),
            listed.status.word().to_owned(),
            listed.started_at.strftime("%F %T").to_string(),
            ByteSize(listed.stored_bytes).to_string(),
            databases.unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let header = ["SET", "STATUS", "STARTED (UTC)", "STORED", "DATABASES"];
    say(table(&header, &[3], rows).trim_fmt())?;
    for listed in listed {
        if let Some(reason) = &listed.reason {
            say(format_args!("{}: {reason}", listed.set))?;
        }
    }
    Ok(())
}
