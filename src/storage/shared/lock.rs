//! One holder in the whole cluster: an object that is refreshed while it is held, and expires when it is not.
//!
//! Times are those of the nodes' clocks, which may differ by [`SKEW`].

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::super::conditional::Condition;
use super::{Shared, SharedError};

/// A lock that was not refreshed for this long is nobody's.
const LIFETIME: SignedDuration = SignedDuration::from_mins(3);
/// Its holder gives up this long before, so that two clocks may differ by as much.
const SKEW: SignedDuration = SignedDuration::from_mins(1);
const REFRESH: Duration = Duration::from_secs(30);

/// Who holds a lock; the object's JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    v: u32,
    pub hostname: String,
    /// Tells one holder of a node from the next.
    pid: u32,
    pub since: Timestamp,
    pub expires: Timestamp,
}

impl Holder {
    /// Whether both are one taking of the lock, however often it was refreshed.
    fn is_same(&self, other: &Self) -> bool {
        (&self.hostname, self.pid, self.since) == (&other.hostname, other.pid, other.since)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let since = self.since.strftime("%F %T UTC");
        write!(f, "{} since {since}", self.hostname)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("refused: {work} is held by {holder}")]
    Held { work: &'static str, holder: Holder },
    #[error("the lock for {work} was lost to another node, or could not be kept in the bucket")]
    Lost { work: &'static str },
    #[error(transparent)]
    Shared(#[from] SharedError),
}

impl LockError {
    /// What the operator can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Held { holder, .. } => format!(
                "wait for its end; should {} have died, its lock expires at {}",
                holder.hostname,
                holder.expires.strftime("%F %T UTC")
            ),
            Self::Lost { .. } => {
                "S3 was away for too long, or this node stood still; what was begun does not count"
                    .to_owned()
            }
            Self::Shared(error) => error.hint(),
        }
    }
}

/// A lock that is held, as long as [`ClusterLock::during`] runs.
#[derive(Debug)]
pub struct ClusterLock {
    shared: Shared,
    work: &'static str,
    key: String,
    holder: Holder,
    tag: String,
}

impl ClusterLock {
    /// Takes the lock for `work`, in the name of the node `hostname`.
    ///
    /// The caller holds the node's own lock for that work: so a lock in the node's name is one that a killed process left.
    ///
    /// # Errors
    /// [`LockError::Held`] while another node holds it; otherwise the bucket could not be asked.
    pub async fn take(
        shared: &Shared,
        work: &'static str,
        hostname: &str,
    ) -> Result<Self, LockError> {
        let key = shared.key(&format!("locks/{work}"));
        let now = Timestamp::now();
        let mut lock = Self {
            shared: shared.clone(),
            work,
            key,
            holder: Holder {
                v: 1,
                hostname: hostname.to_owned(),
                pid: std::process::id(),
                since: now,
                expires: now + LIFETIME,
            },
            tag: String::new(),
        };
        let mut left: Option<String> = None;
        loop {
            let condition = left
                .as_deref()
                .map_or(Condition::Absent, Condition::Unchanged);
            if lock.write(condition).await? {
                return Ok(lock);
            }
            left = match lock.read().await? {
                Some((holder, tag)) if is_free(&holder, hostname, Timestamp::now()) => Some(tag),
                Some((holder, _)) => return Err(LockError::Held { work, holder }),
                None => None,
            };
        }
    }

    /// Does `work` with the lock kept fresh; `work` is dropped when the lock is lost.
    ///
    /// # Errors
    /// [`LockError::Lost`] when another node took it over, or the bucket was away for too long.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T, LockError> {
        tokio::select! {
            done = work => Ok(done),
            lost = self.keep() => Err(lost),
        }
    }

    /// Lets the next one in; a lock that cannot be removed expires.
    pub async fn release(self) {
        if let Err(error) = self.remove().await {
            tracing::warn!("the lock for {} is left to expire: {error}", self.work);
        }
    }

    /// Asks for the tag first: a refresh may have been dropped on its way.
    async fn remove(&self) -> Result<(), SharedError> {
        match self.read().await? {
            Some((there, tag)) if there.is_same(&self.holder) => {
                Ok(self.shared.bucket.delete_if(&self.key, &tag).await?)
            }
            _ => Ok(()),
        }
    }

    async fn keep(&mut self) -> LockError {
        loop {
            tokio::time::sleep(REFRESH).await;
            let before = self.holder.expires;
            self.holder.expires = Timestamp::now() + LIFETIME;
            let tag = self.tag.clone();
            match self.write(Condition::Unchanged(&tag)).await {
                Ok(true) => {}
                Ok(false) => match self.read().await {
                    // An earlier refresh was stored and its answer lost: the next one goes on from there.
                    Ok(Some((there, tag))) if there.is_same(&self.holder) => {
                        self.holder.expires = there.expires;
                        self.tag = tag;
                    }
                    Ok(_) => return LockError::Lost { work: self.work },
                    Err(error) => {
                        tracing::warn!("the lock for {} cannot be read: {error}", self.work);
                        self.holder.expires = before;
                    }
                },
                Err(error) => {
                    tracing::warn!("the lock for {} cannot be refreshed: {error}", self.work);
                    self.holder.expires = before;
                    if Timestamp::now() > before - SKEW {
                        return LockError::Lost { work: self.work };
                    }
                }
            }
        }
    }

    /// Whether the object is this lock now.
    async fn write(&mut self, condition: Condition<'_>) -> Result<bool, SharedError> {
        let content = serde_json::to_vec(&self.holder).expect("a holder is plain values");
        let bucket = &self.shared.bucket;
        if let Some(tag) = bucket.put_if(&self.key, &content, condition).await? {
            self.tag = tag;
            return Ok(true);
        }
        // A request whose answer was lost is sent again, and finds itself.
        match bucket.get_tagged(&self.key).await? {
            Some((there, tag)) if there == content => {
                self.tag = tag;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn read(&self) -> Result<Option<(Holder, String)>, SharedError> {
        let Some((content, tag)) = self.shared.bucket.get_tagged(&self.key).await? else {
            return Ok(None);
        };
        let holder = serde_json::from_slice(&content);
        let holder = holder.map_err(|error| self.shared.damaged(&self.key, &error))?;
        Ok(Some((holder, tag)))
    }
}

/// Whether a lock may be taken over by the node `hostname`, which runs no such work itself.
fn is_free(holder: &Holder, hostname: &str, now: Timestamp) -> bool {
    holder.expires <= now || holder.hostname == hostname
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_when_it_expired_or_was_left_by_this_node() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let json = r#"{"v":1,"hostname":"db2","pid":7,"since":"2026-11-21T11:00:00Z","expires":"2026-11-21T12:00:01Z"}"#;
        let held: Holder = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&held).unwrap(), json);
        assert!(!is_free(&held, "db1", now));
        assert!(is_free(&held, "db2", now));
        assert!(is_free(&held, "db1", now + SignedDuration::from_secs(1)));
        assert_eq!(held.to_string(), "db2 since 2026-11-21 11:00:00 UTC");
    }
}
