//! Looks at the buckets: what could be got back, and when that was last proven.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::Node;
use super::doubts::doubts;
use crate::archive::catalog::{Backup, Catalog, Gap, Verified};
use crate::archive::{self, ArchiveError, Look};
use crate::cluster::{Doubts, Dumped, Evidence, Knowledge, Proof, Recoverable};
use crate::config::Config;
use crate::dump;
use crate::jobs::Job;
use crate::log;
use crate::storage::{Acknowledgement, Shared, Success};
use crate::store::Store;

/// The shortest pause between two looks.
const PAUSE: Duration = Duration::from_secs(15);
/// Looking takes at most this part of the time: a large archive is listed less often, but not too seldom.
const SHARE: u32 = 20;
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// For one look.
const LIMIT: Duration = Duration::from_mins(5);

/// Keeps the evidence fresh.
pub(super) async fn keep(node: &Node, known: &watch::Sender<Knowledge>) {
    let config = &node.tools.loaded.config;
    let mut view = node.view.clone();
    loop {
        let begin = Instant::now();
        let sample = view.borrow_and_update().sample;
        let identifier = sample.map(|sample| sample.system_identifier);
        let looked = timeout(LIMIT, look(config, Some(&node.store), identifier)).await;
        let evidence = looked.unwrap_or_else(|_| {
            let reason = format!("S3 did not answer within {} s", LIMIT.as_secs());
            Evidence {
                at: Timestamp::now(),
                base_backup: Err(reason.clone()),
                doubts: None,
                dump: Err(reason.clone()),
                proof: Err(reason),
            }
        });
        let failed = evidence.base_backup.is_err();
        known.send_modify(|known| known.evidence = Some(evidence));
        let pause = if failed {
            PAUSE
        } else {
            (begin.elapsed() * SHARE).clamp(PAUSE, LONGEST_PAUSE)
        };
        tokio::time::sleep(pause).await;
    }
}

/// One look; a proof of another cluster than `system_identifier`, where that is known, is none.
pub(super) async fn look(
    config: &Config,
    store: Option<&Store>,
    system_identifier: Option<u64>,
) -> Evidence {
    let (repository, dump, proof) = tokio::join!(
        repository(config, store, system_identifier),
        newest_dump(config),
        proof(config, system_identifier)
    );
    let (base_backup, doubts) = match repository {
        Ok((base_backup, doubts)) => (Ok(base_backup), Some(doubts)),
        Err(error) => (Err(log::chain(&error)), None),
    };
    Evidence {
        at: Timestamp::now(),
        base_backup,
        doubts,
        dump,
        proof,
    }
}

async fn repository(
    config: &Config,
    store: Option<&Store>,
    system_identifier: Option<u64>,
) -> Result<(Option<Recoverable>, Doubts), ArchiveError> {
    let now = Timestamp::now();
    let repository = archive::repository(config)?;
    let (catalog, verified) = archive::verify(config, Look::Since(store), now).await?;
    let seen = (&catalog, &verified);
    let doubts = doubts(config, &repository, seen, system_identifier, now).await?;
    let newest = catalog.newest();
    let newest = newest.map(|newest| recoverable(&catalog, &verified, newest));
    Ok((newest, doubts))
}

fn recoverable(catalog: &Catalog, verified: &Verified, newest: &Backup) -> Recoverable {
    let window = catalog.window(newest);
    let gap = verified.first_gap_of(&newest.name);
    let acknowledged = gap.and_then(|gap| gap.acknowledged.as_ref());
    Recoverable {
        backup: newest.name.clone(),
        finished_at: newest.finished_at,
        unusable: catalog
            .why_unusable(newest)
            .or_else(|| catalog.why_left(newest)),
        to: window.map(|window| (window.timeline, window.to_lsn, window.to)),
        gap: gap.map(Gap::named),
        acknowledged: acknowledged.map(Acknowledgement::told),
    }
}

async fn newest_dump(config: &Config) -> Result<Option<Dumped>, String> {
    let listed = dump::list(config)
        .await
        .map_err(|error| log::chain(&error))?;
    let complete = listed.into_iter().rfind(|set| set.reason.is_none());
    Ok(complete.map(|set| Dumped {
        set: set.set,
        at: set.started_at,
    }))
}

/// The last restore test that passed, on whatever node.
async fn proof(config: &Config, system_identifier: Option<u64>) -> Result<Option<Proof>, String> {
    let asked = async {
        let shared = Shared::open(config).await?;
        shared.last_success(Job::RestoreTest.name()).await
    };
    let success = asked.await.map_err(|error| log::chain(&error))?;
    let of_this = |success: &Success| {
        let theirs = success.detail["system_identifier"].as_u64();
        system_identifier.is_none() || theirs.is_none() || theirs == system_identifier
    };
    Ok(success.filter(of_this).map(|success| Proof {
        at: success.finished_at(),
        backup: success.detail["backup"].as_str().map(str::to_owned),
        rto_secs: success.detail["rto_secs"].as_f64(),
        rpo_secs: success.detail["rpo_secs"].as_f64(),
        node: success.node,
    }))
}
