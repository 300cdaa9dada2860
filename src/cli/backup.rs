//! `xdb backup push` and `xdb backup list`, and the way to `show`.

use clap::{Args, Subcommand};

use super::backup_list::{Listed, print_table, read};
use super::backup_show;
use super::exit::Exit;
use super::output::say;
use crate::config::{Flag, Loaded};
use crate::jobs::base_backup;
use crate::repository::RepositoryHandle;
use crate::runner;

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
    /// Flags that are configuration.
    pub(crate) fn flags(&self) -> Vec<Flag> {
        match self {
            Self::List(list) => super::repository_flag(list.repository.as_deref()),
            Self::Push { .. } | Self::Show { .. } => Vec::new(),
        }
    }
}

pub(crate) async fn run(verb: Verb, loaded: &Loaded) -> anyhow::Result<Exit> {
    match verb {
        Verb::Push { full, json } => {
            let repository = RepositoryHandle::new(&loaded.config);
            let push = base_backup::run(&loaded.config.node, &repository, full);
            let pushed = runner::run_once(loaded, &base_backup::JOB, push).await?;
            if json {
                say(serde_json::to_string_pretty(&pushed)?)?;
            } else {
                say(pushed)?;
            }
        }
        Verb::Show { name, json } => {
            return backup_show::show(loaded, &name, json).await;
        }
        Verb::List(list) => {
            let (repository, catalog) = read(loaded).await?;
            let listed: Vec<Listed> = catalog
                .backups
                .iter()
                .map(|backup| Listed::of(&catalog, backup))
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
