//! One holder in the whole cluster: an object that is refreshed while it is held, and expires when it is not.
//!
//! Times are those of the nodes' clocks, which may differ by [`SKEW`]. A lock is released by deleting its object, and where
//! the bucket keeps versions by a record that says so: a delete marker would stand in the way of the next holder.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::{Shared, SharedError};
use crate::log;
use crate::storage::{Change, Condition, StorageError, Written};

/// A lock that was not refreshed for this long is free.
const LIFETIME: SignedDuration = SignedDuration::from_mins(3);
/// Its holder gives up this long before, so that two clocks may differ by as much.
const SKEW: SignedDuration = SignedDuration::from_mins(1);
const REFRESH: Duration = Duration::from_secs(30);
/// After a refresh that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Who holds a lock; the object's JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    v: u32,
    pub hostname: String,
    /// Tells one holder of a node from the next.
    pid: u32,
    pub since: Timestamp,
    pub expires: Timestamp,
    /// Set by the holder itself at its end, where the object is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    released_at: Option<Timestamp>,
}

impl Holder {
    /// Whether both are one taking of the lock, however often it was refreshed.
    fn is_same(&self, other: &Self) -> bool {
        (&self.hostname, self.pid, self.since) == (&other.hostname, other.pid, other.since)
    }

    /// Whether the node `hostname`, which runs no such work itself, may take the lock over.
    fn is_free(&self, hostname: &str, now: Timestamp) -> bool {
        self.released_at.is_some() || self.expires <= now || self.hostname == hostname
    }

    /// Every release reads it as free, also on a node whose clock is behind.
    fn released(&self, now: Timestamp) -> Self {
        Self {
            expires: Timestamp::UNIX_EPOCH,
            released_at: Some(now),
            ..self.clone()
        }
    }

    fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a holder is plain values")
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
    #[error(
        "refused: this S3 server does not honour conditional writes ({reason}), so two nodes could hold the lock for {work} at once"
    )]
    NotHonoured { work: &'static str, reason: String },
    #[error("the lock for {work} was lost: {reason}")]
    Lost { work: &'static str, reason: String },
    #[error(transparent)]
    Shared(#[from] SharedError),
}

impl From<StorageError> for LockError {
    fn from(error: StorageError) -> Self {
        Self::Shared(error.into())
    }
}

impl LockError {
    /// Another holder has it: not now.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Held { .. })
    }

    /// Nothing was tried, for safety.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Held { .. } | Self::NotHonoured { .. })
    }

    /// What the operator can do.
    pub fn hint(&self) -> String {
        match self {
            Self::Held { holder, .. } => format!(
                "wait for its end; should {} have died, its lock expires at {}",
                holder.hostname,
                holder.expires.strftime("%F %T UTC")
            ),
            Self::NotHonoured { .. } => {
                "use an S3 server that honours If-None-Match and If-Match (AWS S3, versitygw, MinIO do), and no proxy that drops these headers"
                    .to_owned()
            }
            Self::Lost { .. } => {
                "S3 was away for too long, or this node stood still; what was begun does not count"
                    .to_owned()
            }
            Self::Shared(error) => error.hint(),
        }
    }
}

/// For how long a holder may count on its last refresh.
///
/// By both clocks: the one may be set back, the other stands still while the machine sleeps.
#[derive(Debug, Clone, Copy)]
struct Lease {
    from: Timestamp,
    steady: Instant,
}

impl Lease {
    const LENGTH: SignedDuration = SignedDuration::from_secs(LIFETIME.as_secs() - SKEW.as_secs());

    /// From before the request is sent: other nodes count from when it was made.
    fn begin() -> Self {
        Self {
            from: Timestamp::now(),
            steady: Instant::now(),
        }
    }

    fn expires(&self) -> Timestamp {
        self.from + LIFETIME
    }

    /// Of what may pass on the steady clock; zero once it is over.
    fn left(&self, steady: Instant) -> Duration {
        let length = Duration::from_secs(Self::LENGTH.as_secs().unsigned_abs());
        length.saturating_sub(steady.saturating_duration_since(self.steady))
    }

    /// Whether it is over by the wall clock: the machine slept, or its clock was set.
    fn is_over_by_wall(&self, now: Timestamp) -> bool {
        now.duration_since(self.from) >= Self::LENGTH
    }

    /// Waits for `pause`; less long, and `true`, where the wall clock says that the lease is over.
    async fn pause(&self, pause: Duration) -> bool {
        let end = Instant::now() + pause;
        loop {
            if self.is_over_by_wall(Timestamp::now()) {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            sleep(left.min(Duration::from_secs(1))).await;
        }
    }
}

/// A lock that is held, as long as [`ClusterLock::during`] runs.
#[derive(Debug)]
pub(crate) struct ClusterLock {
    shared: Shared,
    work: &'static str,
    key: String,
    holder: Holder,
    tag: String,
    lease: Lease,
    /// Whether the object stays when the lock is released.
    keeps_object: bool,
}

/// What became of one refresh.
enum Refreshed {
    Yes,
    /// The object was not as expected, and is known now.
    Again,
    Lost(String),
}

impl ClusterLock {
    /// Takes the lock for `work`, in the name of the node `hostname`.
    ///
    /// The caller holds the node's own lock for that work: so a lock in the node's name is one that a killed process left.
    ///
    /// # Errors
    /// [`LockError::Held`] while another node holds it, [`LockError::NotHonoured`] where S3 keeps no lock; otherwise the
    /// bucket could not be asked.
    pub(crate) async fn take(
        shared: &Shared,
        work: &'static str,
        hostname: &str,
    ) -> Result<Self, LockError> {
        let conditional = shared.conditional_writes().await?;
        let deletes = conditional.map_err(|reason| LockError::NotHonoured { work, reason })?;
        let key = shared.key(&format!("locks/{work}"));
        let since = Timestamp::now();
        let decide = |there: Option<&[u8]>| {
            if let Some(content) = there {
                let holder: Holder = serde_json::from_slice(content)
                    .map_err(|error| shared.damaged(&key, &error))?;
                if !holder.is_free(hostname, Timestamp::now()) {
                    return Err(LockError::Held { work, holder });
                }
            }
            let lease = Lease::begin();
            let holder = Holder {
                v: 1,
                hostname: hostname.to_owned(),
                pid: std::process::id(),
                since,
                expires: lease.expires(),
                released_at: None,
            };
            Ok(Change::Write(holder.json(), (holder, lease)))
        };
        let ((holder, lease), written) = shared.bucket.update(&key, decide).await?;
        let Written { tag, is_versioned } = written.unwrap_or_default();
        Ok(Self {
            shared: shared.clone(),
            work,
            key,
            holder,
            tag,
            lease,
            keeps_object: is_versioned || !deletes,
        })
    }

    /// Does `work` with the lock kept fresh; `work` is dropped when the lock is lost.
    ///
    /// # Errors
    /// [`LockError::Lost`] when another node took it over, or the bucket was away for too long.
    pub(crate) async fn during<T>(
        &mut self,
        work: impl Future<Output = T>,
    ) -> Result<T, LockError> {
        tokio::select! {
            done = work => Ok(done),
            lost = self.keep() => Err(lost),
        }
    }

    /// Lets the next one in; a lock that cannot be removed expires.
    pub(crate) async fn release(self) {
        if let Err(error) = self.remove().await {
            let why = log::chain(&error);
            tracing::warn!("the lock for {} is left to expire: {why}", self.work);
        }
    }

    /// Reads the object first: a refresh may have been dropped on its way.
    async fn remove(&self) -> Result<(), SharedError> {
        if !self.keeps_object {
            if let Some((there, tag)) = self.read().await?
                && there.is_same(&self.holder)
            {
                self.shared.bucket.delete_if(&self.key, &tag).await?;
            }
            return Ok(());
        }
        let decide = |there: Option<&[u8]>| -> Result<Change<()>, SharedError> {
            let there = there.and_then(|content| serde_json::from_slice::<Holder>(content).ok());
            Ok(match there {
                Some(there) if there.is_same(&self.holder) => {
                    Change::Write(there.released(Timestamp::now()).json(), ())
                }
                _ => Change::Keep(()),
            })
        };
        self.shared.bucket.update(&self.key, decide).await?;
        Ok(())
    }

    async fn keep(&mut self) -> LockError {
        let work = self.work;
        let (mut pause, mut failure) = (REFRESH, "this node stood still".to_owned());
        loop {
            let over = sleep(self.lease.left(Instant::now()));
            let refreshed = tokio::select! {
                () = over => {
                    let secs = Lease::LENGTH.as_secs();
                    let reason = format!("it could not be refreshed for {secs} s ({failure})");
                    return LockError::Lost { work, reason };
                }
                refreshed = self.refresh_after(pause) => refreshed,
            };
            pause = RETRY;
            match refreshed {
                Ok(Refreshed::Yes) => pause = REFRESH,
                Ok(Refreshed::Again) => {
                    "S3 refused the refresh though the lock is unchanged".clone_into(&mut failure);
                }
                Ok(Refreshed::Lost(reason)) => return LockError::Lost { work, reason },
                Err(error) => {
                    failure = log::chain(&error);
                    tracing::warn!("the lock for {work} cannot be refreshed: {failure}");
                }
            }
        }
    }

    /// A clock that was set, or a machine that slept, must not wait for the next turn: the refresh shows whether another
    /// node has taken the lock over meanwhile.
    async fn refresh_after(&mut self, pause: Duration) -> Result<Refreshed, SharedError> {
        if !self.lease.pause(pause).await {
            return self.refresh().await;
        }
        match timeout(RETRY, self.refresh()).await {
            Ok(Ok(refreshed @ (Refreshed::Yes | Refreshed::Lost(_)))) => Ok(refreshed),
            _ => {
                let reason = "this node's clock passed its end, and it could not be refreshed";
                Ok(Refreshed::Lost(reason.to_owned()))
            }
        }
    }

    async fn refresh(&mut self) -> Result<Refreshed, SharedError> {
        let lease = Lease::begin();
        let holder = Holder {
            expires: lease.expires(),
            ..self.holder.clone()
        };
        let bucket = &self.shared.bucket;
        let unchanged = Condition::Unchanged(&self.tag);
        if let Some(written) = bucket.put_if(&self.key, &holder.json(), unchanged).await? {
            self.tag = written.tag;
            self.keeps_object |= written.is_versioned;
            (self.holder, self.lease) = (holder, lease);
            return Ok(Refreshed::Yes);
        }
        match self.read().await? {
            // A refresh whose answer was lost is sent again, and refused because the first one succeeded.
            Some((there, tag)) if there.is_same(&self.holder) => {
                self.tag = tag;
                if there != holder {
                    return Ok(Refreshed::Again);
                }
                (self.holder, self.lease) = (holder, lease);
                Ok(Refreshed::Yes)
            }
            Some((other, _)) => Ok(Refreshed::Lost(format!("{other} has it"))),
            None => Ok(Refreshed::Lost("its object was removed".to_owned())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_free_when_it_expired_was_released_or_was_left_by_this_node() {
        let now: Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let json = r#"{"v":1,"hostname":"db2","pid":7,"since":"2026-11-21T11:00:00Z","expires":"2026-11-21T12:00:01Z"}"#;
        let held: Holder = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&held).unwrap(), json);
        assert!(!held.is_free("db1", now));
        assert!(held.is_free("db2", now));
        assert!(held.is_free("db1", now + SignedDuration::from_secs(1)));
        assert_eq!(held.to_string(), "db2 since 2026-11-21 11:00:00 UTC");

        let released = held.released(now);
        assert!(released.is_free("db1", now) && released.is_same(&held));
        // A release of xdb that does not know the field reads it as expired, wherever its clock is.
        assert_eq!(released.expires, Timestamp::UNIX_EPOCH);
        let json = serde_json::to_string(&released).unwrap();
        assert!(
            json.ends_with(r#""released_at":"2026-11-21T12:00:00Z"}"#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Holder>(&json).unwrap(), released);
    }

    #[tokio::test]
    async fn a_lease_ends_two_minutes_after_its_last_refresh_by_either_clock() {
        let lease = Lease::begin();
        let (from, steady) = (lease.from, lease.steady);
        let left = |passed: u64| lease.left(steady + Duration::from_secs(passed)).as_secs();
        assert_eq!(
            [left(0), left(30), left(119), left(120), left(600)],
            [120, 90, 1, 0, 0]
        );
        let over = |wall: i64| lease.is_over_by_wall(from + SignedDuration::from_secs(wall));
        assert!(!over(0) && !over(119) && over(120) && over(86_400));
        assert!(!over(-3600), "the clock was set back");
        assert_eq!(lease.expires(), from + LIFETIME);
        assert!(!lease.pause(Duration::from_millis(2)).await);
        let slept = Lease {
            from: from - LIFETIME,
            steady: Instant::now(),
        };
        assert!(slept.pause(REFRESH).await);
        assert!(
            slept.left(Instant::now()).as_secs() > 100,
            "only the wall clock passed it"
        );
    }
}
