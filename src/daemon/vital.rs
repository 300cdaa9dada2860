//! The two checks that cannot wait for `schedule.checks`: without PostgreSQL or PgBouncer nothing works.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::time::timeout;

use super::every;
use crate::alerts::{Extent, Judged};
use crate::checks::{Definition, Kind, judge_pgbouncer_up};
use crate::log;
use crate::model::{AlertKey, Scope, Verdict};
use crate::runner::{Node, alerts};

/// For one new login to PostgreSQL.
const LIMIT: Duration = Duration::from_secs(3);
/// Between two new logins while all is well: PostgreSQL may log each.
const LOGIN_EVERY: Duration = Duration::from_secs(10);

/// When a new login to PostgreSQL was last tried, and whether it worked.
type LastLogin = Option<(Instant, bool)>;

/// Looks every two seconds, and raises what lasts for as long as each definition says.
pub(super) async fn watch(node: &Node) {
    let mut last_login = None;
    let mut pgbouncer_lived = true;
    let mut ticks = every(2);
    loop {
        ticks.tick().await;
        let postgresql = look_at_postgresql(node, &mut last_login).await;
        let pgbouncer = look_at_pgbouncer(node);
        let judged = judge(node, postgresql.as_ref(), pgbouncer.as_ref());
        let (found, now) = (
            judged.iter().map(|one| one.finding.clone()),
            Timestamp::now(),
        );
        node.activity
            .found("vital", &found.collect::<Vec<_>>(), now);
        let recorded = node.alerts.record(judged, Extent::Whole, now);
        match recorded.await {
            Ok(events) if events.is_empty() => {}
            Ok(_) => alerts::deliver(node).await,
            Err(error) => tracing::error!("alerts cannot be kept: {}", log::chain(&error)),
        }
        let lives = node.tools.pgbouncer_lives();
        if pgbouncer_lived && !lives {
            end_alerts_on_its_inside(node).await;
        }
        pgbouncer_lived = lives;
    }
}

/// One finding for each definition that was looked at and belongs to this role.
fn judge(node: &Node, postgresql: Option<&Verdict>, pgbouncer: Option<&Verdict>) -> Vec<Judged> {
    let sample = node.view.borrow().sample;
    let is_here = |definition: &&Definition| {
        sample.is_none_or(|sample| definition.role.is(sample.in_recovery))
    };
    let definitions = node.tools.definitions.current();
    let judged = definitions.iter().filter(is_here).filter_map(|definition| {
        let verdict = match definition.kind {
            Kind::PostgresqlUp => postgresql?,
            Kind::PgBouncerUp => pgbouncer?,
            _ => return None,
        };
        let finding = node.tools.sampler.found(definition, None, verdict.clone());
        Some(Judged {
            finding,
            hold: definition.hold,
        })
    });
    judged.collect()
}

/// A failed sample means down. The kept session may still answer while new logins fail, so a new login is tried now and
/// then. `None` where nothing was looked at.
async fn look_at_postgresql(node: &Node, last: &mut LastLogin) -> Option<Verdict> {
    let failing = node.view.borrow().failing.clone();
    if let Some((_, reason)) = failing {
        *last = None;
        return Some(Verdict::Critical(reason));
    }
    if last.is_some_and(|(at, worked)| worked && at.elapsed() < LOGIN_EVERY) {
        return None;
    }
    let looked = timeout(LIMIT, node.tools.sampler.check_postgresql_up()).await;
    let verdict = looked.unwrap_or_else(|_| {
        let secs = LIMIT.as_secs();
        Verdict::Critical(format!(
            "PostgreSQL did not answer a new login within {secs} s"
        ))
    });
    *last = Some((Instant::now(), verdict == Verdict::Ok));
    Some(verdict)
}

/// From what the daemon sees each second anyway.
fn look_at_pgbouncer(node: &Node) -> Option<Verdict> {
    let view = node.view.borrow();
    view.pgbouncer.as_ref().map(judge_pgbouncer_up)
}

/// Resolves the alerts on saturation and waiting clients: they do not apply while PgBouncer is down.
async fn end_alerts_on_its_inside(node: &Node) {
    let definitions = node.tools.definitions.current();
    let inside = definitions
        .iter()
        .filter(|one| matches!(one.kind, Kind::PgBouncer(_)));
    let names: Vec<String> = inside.map(|one| one.name.clone()).collect();
    let own = Scope::Node(node.hostname().to_owned());
    let which = move |key: &AlertKey| key.scope == own && names.contains(&key.check);
    alerts::resolve(node, which, "PgBouncer is down: see pgbouncer-up").await;
}
