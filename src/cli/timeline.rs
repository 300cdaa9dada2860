//! `xdb timeline list` and `xdb timeline forget`.

use anyhow::Context;
use clap::Subcommand;
use serde::Serialize;

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::operator;
use super::output::{say, table};
use crate::cluster::{self, View};
use crate::config::Config;
use crate::log;
use crate::model::{ServerPosition, Timeline, TimelineHistory};
use crate::postgres::control_file;
use crate::repository::{self, Relation, Repository, RepositoryError, ShownByPeers, Timelines};
use crate::runner;
use crate::store::StateFiles;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List this server's timeline, the newer ones in the archive, and what each of them is to this server
    #[command(
        after_help = "Exit codes: 0 no newer timeline concerns this server, 1 one supersedes it or is not this cluster's, 4 check failed."
    )]
    List {
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Have the cluster forget a timeline that is not its successor: a clone's, or that of a promotion that was undone
    #[command(
        after_help = "Exit codes: 0 forgotten on all nodes, 3 refused, 4 it could not be kept, or on this node only."
    )]
    Forget {
        /// The timeline, as `xdb timeline list` shows it
        timeline: u32,
        /// Why it is not the cluster's successor
        #[arg(long, required_unless_present = "undo", value_parser = clap::builder::NonEmptyStringValueParser::new())]
        why: Option<String>,
        /// Who decided so; by default the user before sudo, or who runs this
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        by: Option<String>,
        /// Move the timeline's files out of the archive, to xdb/{cluster}/set-aside/
        #[arg(long, conflicts_with = "undo")]
        set_aside: bool,
        /// Forget it though a configured peer does not answer: that peer must not be a primary on the timeline
        #[arg(long, conflicts_with = "undo")]
        force: bool,
        /// Take it back: the timeline counts again. Run it on both nodes
        #[arg(long)]
        undo: bool,
    },
}

/// A line of the list.
#[derive(Debug, Serialize)]
struct TimelineLine {
    timeline: Timeline,
    /// `own`, `supersedes`, `forgotten` or `doubtful`.
    relation: &'static str,
    detail: String,
    history: Option<TimelineHistory>,
}

pub(crate) async fn run(verb: Verb, handles: &Handles) -> anyhow::Result<Exit> {
    let config = handles.config();
    let repository = handles.repository.get().await?;
    let state = StateFiles::of(&config.node.state_directory);
    match verb {
        Verb::List { json } => list(config, &repository, json).await,
        Verb::Forget {
            timeline,
            undo: true,
            ..
        } => {
            repository::remember_timeline(&repository, &state, Timeline(timeline)).await?;
            say(format_args!("timeline {timeline} counts again"))?;
            Ok(Exit::Good)
        }
        Verb::Forget {
            timeline,
            why,
            by,
            set_aside,
            force,
            ..
        } => {
            let (by, why) = (operator::name(by), why.unwrap_or_default());
            let shown = ask_peers(config, Timeline(timeline), force).await?;
            let (timeline_id, who) = (Timeline(timeline), (&*by, &*why));
            let (asked, at) = ((set_aside, shown), (&repository, &state));
            let done = repository::forget_timeline(at, timeline_id, who, asked).await?;
            if let Some(error) = &done.here_only {
                complain(
                    &format!(
                        "timeline {timeline} is forgotten on this node only: {}",
                        log::chain(error)
                    ),
                    Some("run it on the other node, too, or again once S3 answers"),
                );
                return Ok(Exit::CouldNot);
            }
            say(format_args!(
                "timeline {timeline} is forgotten on all nodes"
            ))?;
            if done.moved > 0 {
                let (cluster, moved, folder) = (&config.cluster.name, done.moved, done.folder);
                say(format_args!(
                    "{moved} files moved to xdb/{cluster}/set-aside/{folder}/"
                ))?;
            }
            if done.left > 0 {
                say(format_args!(
                    "{} files of it are still in the archive. A server that is promoted takes the same number, and its archiver then \
                     stops: move them with `xdb timeline forget {timeline} --set-aside …`",
                    done.left
                ))?;
            }
            Ok(Exit::Good)
        }
    }
}

/// What the configured peers show of `timeline`. One that a primary runs on is no mistake, and neither may be one of a peer
/// that does not answer.
async fn ask_peers(
    config: &Config,
    timeline: Timeline,
    force: bool,
) -> Result<ShownByPeers, RepositoryError> {
    let mut shown = None;
    for address in &config.cluster.peers {
        let state = match cluster::ask_state(address).await {
            Ok(state) if state.hostname == config.node.hostname => continue,
            Ok(state) => state,
            Err(_) if force || runner::is_this_node(&config.node.hostname, address) => continue,
            Err(error) => {
                return Err(RepositoryError::Refused {
                    reason: format!("the peer {address} may be a primary on timeline {timeline}: {}", log::chain(&error)),
                    hint: "start its daemon, or repeat this with --force where its PostgreSQL is stopped for good"
                        .to_owned(),
                });
            }
        };
        let leads = state.view.in_recovery(state.at) == Some(false);
        let on = state.view.sample.map(|sample| sample.timeline);
        if leads && on == Some(timeline) {
            return Err(RepositoryError::Refused {
                reason: format!("{} is a primary on timeline {timeline}", state.hostname),
                hint: format!(
                    "stop PostgreSQL on {} first, if this server is to lead (runbooks/node.md)",
                    state.hostname
                ),
            });
        }
        shown = shown.or_else(|| shown_by(&state.view, timeline));
    }
    Ok(shown)
}

fn shown_by(view: &View, timeline: Timeline) -> ShownByPeers {
    let proof = view.proof.as_ref().filter(|it| it.timeline == timeline);
    if let Some(proof) = proof {
        return Some(Some(proof.history.clone()));
    }
    let is_on = view.sample.is_some_and(|it| it.timeline == timeline);
    is_on.then(|| view.history.clone())
}

async fn list(config: &Config, repository: &Repository, json: bool) -> anyhow::Result<Exit> {
    let own = own_position(config).await?;
    let state = StateFiles::of(&config.node.state_directory);
    let timelines = Timelines::of(repository, state.clone());
    let newer = timelines.newer(&own).await?;
    let mut lines = vec![TimelineLine {
        timeline: own.timeline,
        relation: "own",
        detail: format!("this server is at {}", own.lsn),
        history: own.history.clone(),
    }];
    lines.extend(newer.into_iter().map(|newer| {
        let (relation, detail) = match newer.relation {
            Relation::Supersedes(proof) => ("supersedes", format!("proven by {}", proof.proven_by)),
            Relation::Forgotten(it) => ("forgotten", format!("by {}: {}", it.by, it.why)),
            Relation::Doubtful(reason) => ("doubtful", reason),
        };
        TimelineLine {
            timeline: newer.timeline,
            relation,
            detail,
            history: newer.history,
        }
    }));
    let remembered = state.supersession();
    let remembered = remembered.filter(|proof| proof.supersedes(&own));
    if let Some(proof) =
        remembered.filter(|proof| lines.iter().all(|it| it.timeline != proof.timeline))
    {
        lines.push(TimelineLine {
            timeline: proof.timeline,
            relation: "supersedes",
            detail: format!("remembered on this node: {}", proof.proven_by),
            history: Some(proof.history),
        });
    }
    if json {
        say(serde_json::to_string_pretty(&lines)?)?;
    } else {
        let rows = lines.iter().map(|line| {
            let number = line.timeline.to_string();
            vec![number, line.relation.to_owned(), line.detail.clone()]
        });
        say(table(&["TIMELINE", "RELATION", "DETAIL"], &[0], rows).trim_fmt())?;
    }
    let concerns = |line: &TimelineLine| matches!(line.relation, "supersedes" | "doubtful");
    Ok(if lines.iter().any(concerns) {
        Exit::Bad
    } else {
        Exit::Good
    })
}

/// By the running server; where it does not answer, by its control file.
async fn own_position(config: &Config) -> anyhow::Result<ServerPosition> {
    let sampled = cluster::ServerSampler::new(&config.postgres)
        .sample()
        .await
        .ok();
    let (identifier, timeline, lsn) = match sampled {
        Some(sample) => (
            sample.system_identifier,
            sample.timeline,
            sample.position.unwrap_or_default(),
        ),
        None => {
            let file = control_file(&config.postgres.data_directory);
            let file = file.context("PostgreSQL does not answer, and its control file cannot be read: postgres.data_directory must be this server's")?;
            (file.system_identifier, file.timeline, file.checkpoint)
        }
    };
    Ok(ServerPosition {
        system_identifier: identifier,
        timeline,
        lsn,
        history: repository::own_history(&config.postgres.data_directory, timeline),
    })
}
