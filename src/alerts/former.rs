//! The cluster's former names: what was raised under one of them must end there.

use jiff::Timestamp;
use redis::cmd;

use super::alert_transaction::{AlertTransaction, Reporter, queue_notices};
use super::event::{Alert, Event, EventKind};
use super::receiver::Dispatch;
use super::{Alerts, AlertsError};
use crate::model::{AlertKey, AlertState, Notice, Scope, Severity};
use crate::redis::{Keys, Redis};
use crate::store::{OUTBOX_LIMIT, StoreError, Writing};

const END: &str = include_str!("end_former.lua");

impl Alerts {
    /// Notes the cluster's name; gives its former ones, under which alerts may still stand.
    ///
    /// After a change, the alerts of this node are raised again under the new name.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn former_names(&self) -> Result<Vec<String>, StoreError> {
        let alerts = self.clone();
        let now = Timestamp::now();
        self.store
            .write(move |writing| {
                let renamed = writing.see_cluster_name(&alerts.reporter.cluster)?;
                let names = writing.former_cluster_names()?;
                if let Some(former) = names.last().filter(|_| renamed) {
                    raise_under_new_name(writing, &alerts, former, now)?;
                }
                Ok(names)
            })
            .await
    }

    /// Ends in Redis what stands under the cluster's name `former`, but for the alerts of the nodes of `live`, which
    /// still go by it. Nothing is left of it once this gives true.
    ///
    /// # Errors
    /// When Redis is away or the store cannot be written.
    pub async fn end_former(
        &self,
        redis: &Redis,
        former: &str,
        live: &[String],
    ) -> Result<bool, AlertsError> {
        let mut old = self.clone();
        old.keys = Keys::new(former);
        let reason = now_called(&self.reporter.cluster);
        let mut left = false;
        for (field, json) in old.shown(redis).await? {
            let Ok(key) = AlertKey::parse(&field) else {
                continue;
            };
            let is_live = match &key.scope {
                Scope::Cluster => !live.is_empty(),
                Scope::Node(node) => live.contains(node),
            };
            if is_live {
                left = true;
            } else {
                old.end_one(redis, (&field, &key), &json, &reason).await?;
            }
        }
        if !left {
            let former = former.to_owned();
            self.store
                .write(move |writing| writing.forget_cluster_name(&former))
                .await?;
        }
        Ok(!left)
    }

    async fn end_one(
        &self,
        redis: &Redis,
        (field, key): (&str, &AlertKey),
        json: &str,
        reason: &str,
    ) -> Result<(), AlertsError> {
        let now = Timestamp::now();
        let state = Alert::parse(json).map(|alert| alert.state());
        let state = AlertState {
            reason: reason.to_owned(),
            ..state.unwrap_or(AlertState {
                severity: Severity::Unknown,
                since: now,
                raised_at: Some(now),
                reason: String::new(),
                value: None,
                threshold: None,
                runbook: None,
                notice: Notice::known(Severity::Unknown, None),
            })
        };
        let event = Event {
            kind: EventKind::Resolved,
            at: now,
            from: None,
            alert: Alert::new(key, &state, &self.reporter.hostname),
        };
        let mut script = cmd("EVAL");
        script.arg(END).arg(2);
        script.arg(self.keys.active()).arg(self.keys.events());
        script.arg(field).arg(event.to_json());
        script.arg(self.keys.channel()).arg(OUTBOX_LIMIT);
        script.arg(&self.reporter.hostname);
        let _: i64 = redis.ask("end an alert", &script).await?;
        Ok(())
    }
}

/// What waits for Redis was meant for the former name's consumers, where the alerts end. Receivers know an alert by the cluster's
/// name: what waits for them keeps it, and what stands ends under it.
fn raise_under_new_name(
    writing: &Writing<'_>,
    alerts: &Alerts,
    former: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    writing.clear_outbox()?;
    for waiting in writing.notices()? {
        let dispatch = serde_json::from_str::<Dispatch>(&waiting.event).ok();
        if let Some(dispatch) = dispatch.filter(|dispatch| dispatch.cluster.is_none()) {
            let cluster = Some(former.to_owned());
            let json = Dispatch {
                cluster,
                ..dispatch
            }
            .to_json();
            writing.rewrite_notice(&waiting, &json)?;
        }
    }
    let reason = now_called(&alerts.reporter.cluster);
    let reporter = Reporter {
        cluster: former.to_owned(),
        ..alerts.reporter.clone()
    };
    for (key, state) in writing.alerts()? {
        if state.raised_at.is_some() {
            end_at_receivers(writing, &reporter, (&key, &state), &reason, now)?;
        }
    }
    let own = Scope::Node(alerts.reporter.hostname.clone());
    let mut transaction = AlertTransaction::open(writing, &alerts.reporter, now);
    for (key, state) in writing.alerts()? {
        if key.scope == own && state.raised_at.is_some() {
            transaction.raise_again(key, state)?;
        } else {
            // Its next judgement raises it.
            writing.set_alert(&key, None)?;
        }
    }
    transaction.close().map(|_| ())
}

fn now_called(cluster: &str) -> String {
    format!("the cluster is called {cluster} now")
}

/// Ends an alert at the receivers of `reporter` that know it, and nowhere else. Under its cluster's name.
fn end_at_receivers(
    writing: &Writing<'_>,
    reporter: &Reporter,
    (key, state): (&AlertKey, &AlertState),
    reason: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let over = AlertState {
        reason: reason.to_owned(),
        ..state.clone()
    };
    let event = Event {
        kind: EventKind::Resolved,
        at: now,
        from: state.told_before(),
        alert: Alert::new(key, &over, &reporter.hostname),
    };
    let dispatch = Dispatch {
        cluster: Some(reporter.cluster.clone()),
        event,
    };
    let json = dispatch.to_json();
    queue_notices(writing, reporter, &dispatch.event, &json)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tempfile::TempDir;

    use super::super::{Extent, Judged, Rules, Subscription};
    use super::*;
    use crate::model::{Finding, Verdict};
    use crate::store::Store;

    #[tokio::test]
    async fn receivers_hear_the_end_under_the_former_name_and_what_waits_keeps_it() {
        let directory = TempDir::new().unwrap();
        let now = Timestamp::from_second(1_778_666_069).unwrap();
        let store = Store::open(directory.path(), now).unwrap().store;
        let named = |cluster| {
            let subscriptions = vec![Subscription {
                receiver: "pager".to_owned(),
                minimum: Severity::Unknown,
                keeps_incidents: true,
            }];
            Alerts::new(store.clone(), cluster, "db1").with_rules(Rules {
                subscriptions,
                ..Rules::default()
            })
        };
        let alerts = named("old");
        assert_eq!(alerts.former_names().await.unwrap(), [""; 0]);
        let judged = |scope| Judged {
            finding: Finding::new("disk", scope, "", Verdict::Warning("full".to_owned())),
            hold: Duration::ZERO,
        };
        let own = Scope::Node("db1".to_owned());
        let both = vec![judged(own), judged(Scope::Cluster)];
        alerts.record(both, Extent::Part, now).await.unwrap();

        let alerts = named("new");
        for _ in 0..2 {
            assert_eq!(alerts.former_names().await.unwrap(), ["old"]);
        }
        let waiting = store.read(|reading| reading.notices()).await.unwrap();
        let told: Vec<String> = waiting
            .iter()
            .map(|one| {
                let dispatch: Dispatch = serde_json::from_str(&one.event).unwrap();
                let (kind, key) = (dispatch.event.kind.word(), dispatch.event.alert.key());
                let cluster = dispatch.cluster.unwrap_or_else(|| "new".to_owned());
                assert_eq!(one.id, dispatch.event.id(&cluster));
                format!("{cluster}: {kind} {key}")
            })
            .collect();
        assert_eq!(
            told,
            [
                "old: raised disk/db1/",
                "old: raised disk/cluster/",
                "old: resolved disk/cluster/",
                "old: resolved disk/db1/",
                "new: raised disk/db1/",
            ]
        );
    }
}
