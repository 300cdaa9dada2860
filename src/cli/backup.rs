//! `xdb backup push` and `xdb backup list`, and the way to `show`.

use clap::{Args, Subcommand};

use super::backup_list::{BackupLine, print_table, read};
use super::backup_show;
use super::exit::Exit;
use super::handles::Handles;
use super::output::say;
use crate::config::Flag;
use crate::jobs::{Job, base_backup};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Take a base backup of this node's PostgreSQL and push it
    Push {
        /// A full backup, also where a delta would do
        #[arg(long)]
        full: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the backups: status, delta chains, sizes, from when to when each can be recovered
    List(List),
    /// Show one backup: its chain, its sizes, and on each timeline from when to when it can be recovered
    Show {
        /// Its name, or LATEST
        name: String,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Another repository than the configured one
    #[arg(long, value_name = "s3://BUCKET/PREFIX")]
    repository: Option<String>,
    /// Print the list as JSON
    #[arg(long)]
    json: bool,
}

impl Verb {
    /// The job that it runs.
    pub(crate) fn job(&self) -> Option<&'static Job> {
        matches!(self, Self::Push { .. }).then_some(&base_backup::JOB)
    }

    /// Flags that are configuration.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        match self {
            Self::List(list) => super::repository_flag(list.repository.as_deref()),
            Self::Push { .. } | Self::Show { .. } => Vec::new(),
        }
    }
}

pub(crate) async fn run(verb: Verb, handles: &Handles) -> anyhow::Result<Exit> {
    match verb {
        Verb::Push { full, json } => {
            let push = base_backup::run(&handles.config().node, &handles.repository, full);
            let pushed = handles.run_once(&base_backup::JOB, push).await?;
            if json {
                say(serde_json::to_string_pretty(&pushed)?)?;
            } else {
                say(pushed)?;
            }
        }
        Verb::Show { name, json } => {
            return backup_show::show(handles, &name, json).await;
        }
        Verb::List(list) => {
            let (repository, catalog) = read(handles).await?;
            let listed: Vec<BackupLine> = catalog
                .backups
                .iter()
                .map(|backup| BackupLine::of(&catalog, backup))
                .collect();
            if list.json {
                say(serde_json::to_string_pretty(&listed)?)?;
            } else if listed.is_empty() {
                say(format_args!("no backup in {}", repository.location))?;
            } else {
                print_table(&listed)?;
            }
        }
    }
    Ok(Exit::Good)
}
