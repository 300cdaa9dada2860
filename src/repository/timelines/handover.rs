//! Whether a server that asks for the history of a timeline may have it.

use std::time::Duration;

use tokio::time::timeout;

use super::Timelines;
use super::files::History;
use super::tie::{Tie, UNTIED};
use crate::model::{Lsn, ServerPosition, Supersession, Timeline, judge_descent};
use crate::repository::RepositoryError;

impl Timelines {
    /// Whether an operator has declared `proof` void. Where the bucket does not answer within `limit`, what this node
    /// remembers stands.
    pub async fn is_forgotten(&self, proof: &Supersession, limit: Duration) -> bool {
        if self
            .forgotten_here()
            .await
            .iter()
            .any(|one| one.voids(proof))
        {
            return true;
        }
        let asked = timeout(limit, self.forgotten(proof.system_identifier)).await;
        matches!(asked, Ok(Ok(list)) if list.known.iter().any(|one| one.voids(proof)))
    }

    /// Why `timeline` is not handed to the server at `own`, which asks for its history; `None` when it may have it.
    ///
    /// Whether it follows it is PostgreSQL's to judge: an old primary must stop at the history that left it behind.
    ///
    /// # Errors
    /// When that cannot be decided. It then counts as neither absent nor this cluster's: a recovery would end early.
    pub async fn why_not_handed_over(
        &self,
        timeline: Timeline,
        own: &ServerPosition,
        may_be_untied: bool,
    ) -> Result<Option<String>, RepositoryError> {
        let Some(listed) = self.listed(timeline).await? else {
            return Ok(None);
        };
        let unproven = |reason| RepositoryError::Unproven {
            name: timeline.history_file(),
            reason,
        };
        let history = match self.files.history(timeline, &listed.objects).await? {
            History::Absent => return Ok(None),
            History::Read(history) => history,
            History::Unread(error) => return Err(error),
            History::Bad(reason) => {
                let reason = format!("it cannot be read: {reason}");
                return match may_be_untied {
                    true => Ok(Some(reason)),
                    false => Err(unproven(reason)),
                };
            }
        };
        let identifier = own.system_identifier;
        let far = ServerPosition {
            lsn: Lsn(u64::MAX),
            ..own.clone()
        };
        if let Err(reason) = judge_descent(timeline, &history, &far) {
            return Ok(Some(reason));
        }
        let forgotten = self.forgotten(identifier).await?;
        let found = forgotten.find(identifier, timeline, Some(&history));
        if let Some(forgotten) = found.map_err(unproven)? {
            return Ok(Some(format!("{} had it forgotten", forgotten.by)));
        }
        let tie = self.tie(&listed, Some(&history), identifier).await?;
        match tie {
            Tie { ours: Some(_), .. } => Ok(None),
            Tie {
                foreign: Some(reason),
                unread,
                ..
            } if may_be_untied || unread.is_none() => Ok(Some(reason)),
            _ if may_be_untied => Ok(None),
            Tie {
                unread: Some(error),
                ..
            } => Err(error),
            _ => Err(unproven(UNTIED.to_owned())),
        }
    }
}
