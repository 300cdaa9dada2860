//! One run of the checks: what several of them ask is asked once.

use std::collections::HashMap;

use tokio::sync::{Mutex, OnceCell};

use super::SampleError;
use super::server::ServerFacts;
use super::trace::{Answer, Asked, Trace};
use crate::cluster::{LsnRing, Peer, ServerSample, ServerSettings, Standing};
use crate::log;
use crate::model::{AlertKey, Scope, Severity};
use crate::pgbouncer::Console;

/// What the checks of one run share.
#[derive(Debug)]
pub(crate) struct Round {
    /// Where the primary was when, for a replica's lag.
    pub(super) primary: LsnRing,
    /// `None` where the node has no daemon that hears the others.
    pub(super) nodes: Option<Nodes>,
    /// The node's alerts that are raised.
    standing: HashMap<String, Severity>,
    pub(super) server: OnceCell<Result<ServerFacts, String>>,
    console: Mutex<ConsoleAnswers>,
    pub(super) trace: Trace,
}

/// This node and the others, as its daemon knows them.
#[derive(Debug)]
pub(crate) struct Nodes {
    pub peers: Vec<Peer>,
    /// The last sample of this node's server.
    pub sample: Option<ServerSample>,
    pub server: Option<ServerSettings>,
}

/// The console's session, and what it said in this run.
#[derive(Debug, Default)]
struct ConsoleAnswers {
    console: Option<Result<Console, String>>,
    answers: HashMap<String, Result<Answer, String>>,
}

impl Round {
    /// `standing` are the alerts that this node has raised: a limit's margin holds for them.
    pub(crate) fn new(primary: LsnRing, standing: &[Standing]) -> Self {
        let severity = |alert: &Standing| (alert.key.clone(), alert.severity);
        Self {
            primary,
            nodes: None,
            standing: standing.iter().map(severity).collect(),
            server: OnceCell::new(),
            console: Mutex::default(),
            trace: Trace::default(),
        }
    }

    /// The same with what is known of the nodes.
    pub(crate) fn with_nodes(self, nodes: Nodes) -> Self {
        Self {
            nodes: Some(nodes),
            ..self
        }
    }

    /// The same with everything noted that is asked.
    pub(crate) fn explained(self) -> Self {
        Self {
            trace: Trace::new(),
            ..self
        }
    }

    /// What was asked and answered, where that was noted.
    pub(crate) fn asked(self) -> Vec<Asked> {
        self.trace.taken()
    }

    /// The severity of the alert that stands on an object.
    pub(super) fn standing(&self, check: &str, scope: &Scope, object: &str) -> Option<Severity> {
        if self.standing.is_empty() {
            return None;
        }
        let key = AlertKey {
            check: check.to_owned(),
            scope: scope.clone(),
            object: object.to_owned(),
        };
        self.standing.get(&key.to_string()).copied()
    }

    /// Whether an alert of the check stands on any object.
    pub(super) fn has_standing(&self, check: &str, scope: &Scope) -> bool {
        let keys = self.standing.keys().map(|key| AlertKey::parse(key));
        let mut keys = keys.filter_map(Result::ok);
        keys.any(|key| key.check == check && key.scope == *scope)
    }

    /// The answer to `SHOW {show}`, over one session for the whole run.
    pub(super) async fn show(
        &self,
        settings: &crate::config::PgBouncer,
        show: &str,
    ) -> Result<Answer, SampleError> {
        let mut shared = self.console.lock().await;
        if let Some(answer) = shared.answers.get(show) {
            return answer.clone().map_err(SampleError::Before);
        }
        if shared.console.is_none() {
            let opened = Console::open(settings).await;
            shared.console = Some(opened.map_err(|error| log::chain(&error)));
        }
        let answer = match &shared.console {
            Some(Ok(console)) => match console.ask(show).await {
                Ok((columns, rows)) => Ok(Answer { columns, rows }),
                Err(error) => Err(log::chain(&error)),
            },
            Some(Err(reason)) => Err(reason.clone()),
            None => Err("PgBouncer was not asked".to_owned()),
        };
        self.trace.saw(|| Asked {
            of: "PgBouncer".to_owned(),
            question: format!("SHOW {show}"),
            answer: answer.clone(),
        });
        shared.answers.insert(show.to_owned(), answer.clone());
        answer.map_err(SampleError::Before)
    }
}
