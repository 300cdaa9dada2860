//! Findings into the store: each change of an alert together with its event.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::{Mutex, Notify};

use super::alert_transaction::{AlertTransaction, Reporter};
use super::event::{Event, EventKind};
use super::judges::{Judged, Judges};
use super::rules::Rules;
use crate::model::{AlertKey, AlertState, Scope};
use crate::redis::Keys;
use crate::store::{Store, StoreError};

/// The alerts that this node reports.
#[derive(Debug, Clone)]
pub struct Alerts {
    pub(super) store: Store,
    pub(super) keys: Keys,
    pub(super) reporter: Reporter,
    /// One delivery or reconciliation at a time: the hash must not be set from what is over.
    pub(super) turn: Arc<Mutex<()>>,
    judges: Arc<StdMutex<Judges>>,
    /// Checks that are judged by a job's run, perhaps once a day: their alerts stand until the next one.
    by_run: Arc<[&'static str]>,
    /// Redis knew nothing of this node when it was last asked.
    pub(super) redis_lost_all: Arc<AtomicBool>,
    changed: Arc<Notify>,
    /// Redis has decided on events, so their receivers can have them.
    pub(super) decided: Arc<Notify>,
}

/// How much of a check's objects the findings tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All of each named check: what is not found any more is not there any more.
    Whole,
    /// Some, such as one database out of many.
    Part,
}

impl Alerts {
    /// `hostname` is this node's.
    pub fn new(store: Store, cluster: &str, hostname: &str) -> Self {
        Self {
            store,
            keys: Keys::new(cluster),
            reporter: Reporter {
                cluster: cluster.to_owned(),
                hostname: hostname.to_owned(),
                rules: Arc::default(),
            },
            turn: Arc::default(),
            judges: Arc::default(),
            by_run: Arc::default(),
            redis_lost_all: Arc::default(),
            changed: Arc::default(),
            decided: Arc::default(),
        }
    }

    /// Names the checks whose alerts stand until a later run of the same job, however long that takes.
    #[must_use]
    pub fn judged_by_run(self, checks: &[&'static str]) -> Self {
        Self {
            by_run: checks.into(),
            ..self
        }
    }

    /// Sets the reminders, what follows from what, and the receivers beside Redis.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        let reporter = Reporter {
            rules: rules.into(),
            ..self.reporter
        };
        Self { reporter, ..self }
    }

    /// The alerts as this node keeps them, those included that are not raised yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn known(&self) -> Result<Vec<(AlertKey, AlertState)>, StoreError> {
        self.store.read(|reading| reading.alerts()).await
    }

    pub(super) fn stands_by_last_run(&self, key: &AlertKey) -> bool {
        self.by_run.contains(&key.check.as_str())
    }

    pub(super) fn judges(&self) -> MutexGuard<'_, Judges> {
        self.judges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends when the reason, value or severity of a raised alert has changed without an event.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends when Redis has decided on events: a node that is about to die has a moment to report to its receivers.
    pub async fn decided(&self) {
        self.decided.notified().await;
    }

    /// Says that a run of all checks was recorded.
    pub fn round_ended(&self) {
        self.judges().round_ended();
    }

    /// Takes findings in; gives the events that now wait for delivery.
    ///
    /// After a look at the whole of a check that left nothing unknown, alerts on its other objects
    /// are resolved: "I could not look" itself is such an alert, on whatever object it was told.
    ///
    /// # Errors
    /// When the store cannot be written; then nothing has changed.
    pub async fn record(
        &self,
        judged: Vec<Judged>,
        extent: Extent,
        now: Timestamp,
    ) -> Result<Vec<Event>, StoreError> {
        self.judges().saw(&judged, now);
        let work = move |transaction: &mut AlertTransaction<'_, '_>| {
            for judged in &judged {
                transaction.take(judged)?;
            }
            if extent == Extent::Whole {
                transaction.resolve_the_gone(&judged)?;
            }
            Ok(())
        };
        self.write(work, now).await
    }

    /// Tells what is due without a new finding: reminders, silences that began or ended, acknowledgements.
    ///
    /// # Errors
    /// When the store cannot be written; then nothing has changed.
    pub async fn notify(&self, now: Timestamp) -> Result<Vec<Event>, StoreError> {
        self.write(|_| Ok(()), now).await
    }

    /// Does `work` in one transaction, and tells what follows from it.
    async fn write(
        &self,
        work: impl Fn(&mut AlertTransaction<'_, '_>) -> Result<(), StoreError> + Send + Sync + 'static,
        now: Timestamp,
    ) -> Result<Vec<Event>, StoreError> {
        let reporter = self.reporter.clone();
        let written = self.store.write(move |writing| {
            let mut transaction = AlertTransaction::open(writing, &reporter, now);
            work(&mut transaction)?;
            transaction.close()
        });
        let told = written.await?;
        if told.changed {
            self.changed.notify_one();
        }
        Ok(told.events)
    }

    /// Ends the alerts of `scopes` that nothing has judged for two runs of the checks and a minute: a removed check,
    /// an entry in Redis that no node wrote. `stands` names those that stand without being judged.
    ///
    /// # Errors
    /// When the store cannot be read or written; then nothing has changed.
    pub async fn end_abandoned(
        &self,
        scopes: &[Scope],
        stands: impl Fn(&AlertKey) -> bool,
        now: Timestamp,
    ) -> Result<Vec<Event>, StoreError> {
        let alerts = self.store.read(|reading| reading.alerts()).await?;
        let candidates = alerts
            .iter()
            .map(|(key, _)| key)
            .filter(|key| scopes.contains(&key.scope) && !stands(key));
        let abandoned = self.judges().abandoned(candidates, now);
        if abandoned.is_empty() {
            return Ok(Vec::new());
        }
        let which = move |key: &AlertKey| abandoned.contains(key);
        self.resolve(
            which,
            "no check or job of this node judges it any more",
            now,
        )
        .await
    }

    /// Resolves every alert of `which`, because of a role change, a removed check, or the like.
    ///
    /// # Errors
    /// When the store cannot be written; then nothing has changed.
    pub async fn resolve(
        &self,
        which: impl Fn(&AlertKey) -> bool + Send + Sync + 'static,
        reason: &str,
        now: Timestamp,
    ) -> Result<Vec<Event>, StoreError> {
        let reason = reason.to_owned();
        let work = move |transaction: &mut AlertTransaction<'_, '_>| {
            transaction.end_those(&which, &reason)
        };
        let events = self.write(work, now).await?;
        let ended = events
            .iter()
            .filter(|event| event.kind == EventKind::Resolved);
        for event in ended {
            self.judges().forget(&event.alert.key());
        }
        Ok(events)
    }

    /// Forgets every alert of `which` without an event: another node answers for them now.
    ///
    /// # Errors
    /// When the store cannot be written; then nothing has changed.
    pub async fn forget(
        &self,
        which: impl Fn(&AlertKey) -> bool + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        self.store
            .write(move |writing| {
                for (key, _) in writing.alerts()? {
                    if which(&key) {
                        writing.set_alert(&key, None)?;
                    }
                }
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use std::time::Duration;

    use super::*;
    use crate::model::{Finding, Severity, Silence, Silenced, Verdict};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_778_666_069 + second).unwrap()
    }

    /// One finding of the check `age`, which must last for a minute.
    fn judged(object: &str, verdict: Verdict) -> Judged {
        Judged {
            finding: Finding::new("age", Scope::Cluster, object, verdict),
            hold: Duration::from_secs(60),
        }
    }

    fn old() -> Verdict {
        Verdict::Warning("is old".to_owned())
    }

    fn alerts(directory: &TempDir) -> Alerts {
        let store = Store::open(directory.path(), at(0)).unwrap().store;
        Alerts::new(store, "main", "db1")
    }

    fn told(events: &[Event]) -> Vec<String> {
        let told = |event: &Event| {
            let (object, reason) = (&event.alert.object, &event.alert.reason);
            format!("{:?} {object}: {reason}", event.kind)
        };
        events.iter().map(told).collect()
    }

    #[tokio::test]
    async fn a_restart_neither_forgets_the_time_that_ran_nor_raises_again() {
        let directory = TempDir::new().unwrap();
        let record = async |second| {
            let alerts = alerts(&directory);
            let recorded = alerts.record(vec![judged("a", old())], Extent::Part, at(second));
            told(&recorded.await.unwrap())
        };
        assert_eq!(record(0).await, [""; 0]);
        assert_eq!(record(59).await, [""; 0]);
        assert_eq!(record(60).await, ["Raised a: is old"]);
        assert_eq!(record(61).await, [""; 0]);
    }

    #[tokio::test]
    async fn what_a_whole_look_does_not_find_any_more_is_resolved() {
        let directory = TempDir::new().unwrap();
        let alerts = alerts(&directory);
        let record = async |judged, extent, second| {
            let recorded = alerts.record(judged, extent, at(second));
            told(&recorded.await.unwrap())
        };
        let both = || vec![judged("a", old()), judged("b", old())];
        record(both(), Extent::Whole, 0).await;
        assert_eq!(record(both(), Extent::Whole, 60).await.len(), 2);

        let only_a = || vec![judged("a", old())];
        assert_eq!(record(only_a(), Extent::Part, 61).await, [""; 0]);
        let blind = || vec![judged("", Verdict::Unknown("no answer".to_owned()))];
        assert_eq!(record(blind(), Extent::Whole, 62).await, [""; 0]);
        assert_eq!(
            record(blind(), Extent::Whole, 122).await,
            ["Raised : no answer"]
        );
        assert_eq!(
            record(only_a(), Extent::Whole, 123).await,
            ["Resolved : no longer found", "Resolved b: no longer found"]
        );
        // A pending alert goes without a word.
        record(both(), Extent::Whole, 124).await;
        assert_eq!(record(only_a(), Extent::Whole, 125).await, [""; 0]);
        let kept = alerts.store.read(|reading| reading.alerts()).await.unwrap();
        assert_eq!(kept.len(), 1);
    }

    #[tokio::test]
    async fn what_changes_while_it_is_hidden_ends_by_the_severity_that_was_told() {
        let directory = TempDir::new().unwrap();
        let alerts = alerts(&directory);
        let record = async |second, object, verdict| {
            let judged = Judged {
                hold: Duration::ZERO,
                ..judged(object, verdict)
            };
            let recorded = alerts.record(vec![judged], Extent::Part, at(second)).await;
            of_kind(&recorded.unwrap())
        };
        let critical = || Verdict::Critical("is very old".to_owned());
        for object in ["a", "b"] {
            let told = record(0, object, old()).await;
            assert_eq!(told, ["raised Warning from None"]);
        }
        let silence = Silence {
            v: Silence::VERSION,
            id: "a1".to_owned(),
            of: Silenced::Silence {
                pattern: "age".to_owned(),
            },
            severity: Severity::Critical,
            author: "eve".to_owned(),
            comment: String::new(),
            created_at: at(1),
            expires_at: at(100),
            ended: None,
        };
        alerts.keep_silence(silence).await.unwrap();
        let told = of_kind(&alerts.notify(at(1)).await.unwrap());
        assert_eq!(told, ["silenced Warning from None"; 2]);
        for object in ["a", "b"] {
            assert_eq!(record(2, object, critical()).await, [""; 0]);
        }
        let told = record(3, "a", Verdict::Ok).await;
        assert_eq!(told, ["resolved Critical from Some(Warning)"]);
        let told = of_kind(&alerts.notify(at(100)).await.unwrap());
        assert_eq!(told, ["raised Critical from Some(Warning)"]);
        let told = record(101, "b", Verdict::Ok).await;
        assert_eq!(told, ["resolved Critical from None"]);
    }

    fn of_kind(events: &[Event]) -> Vec<String> {
        let told = |event: &Event| {
            let (kind, severity) = (event.kind.word(), event.alert.severity);
            format!("{kind} {severity:?} from {:?}", event.from)
        };
        events.iter().map(told).collect()
    }
}
