//! Looks at the buckets: what can be restored, how long that takes, and when that was last proven.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::timeout;

use super::archive_extent::{extent, restore_tests};
use super::repository_faults::find_faults;
use crate::cluster::{
    ArchiveEnd, ArchiveExtent, Evidence, Knowledge, NewestDump, ProvenRestore, Recoverable,
    RepositoryFaults, RestoreForecast,
};
use crate::config::Config;
use crate::dump::Dumps;
use crate::dump::{self, ReadManifests};
use crate::jobs::restore_test;
use crate::log;
use crate::model::JobDetail;
use crate::repository::catalog::{Backup, Catalog, Gap, Verified};
use crate::repository::{
    self, Acknowledgement, Look, ReadProofs, Repository, RepositoryError, RepositoryHandle,
    RestoreWork, SharedError, Success, expect_restore,
};
use crate::runner::Node;
use crate::store::Store;
use std::path::Path;

/// The shortest pause between two looks.
const PAUSE: Duration = Duration::from_secs(15);
/// Looking takes at most this part of the time: a large archive is listed less often, but not too seldom.
const SHARE: u32 = 20;
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// For one look.
const LIMIT: Duration = Duration::from_mins(5);
/// Proofs that are read: more than a forecast rests on, for some may be of another repository.
const PROOFS: usize = 40;

/// What was fetched before and has not changed: each look asks for the rest only.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    manifests: ReadManifests,
    proofs: ReadProofs,
}

/// Keeps the evidence fresh.
pub(super) async fn keep(node: &Node, known: &watch::Sender<Knowledge>) {
    let config = &node.tools.loaded.config;
    let mut view = node.view.clone();
    let mut fetched = Fetched::default();
    loop {
        let begin = Instant::now();
        let sample = view.borrow_and_update().sample;
        let identifier = sample.map(|sample| sample.system_identifier);
        let looking = look(
            config,
            &node.tools.repository,
            Some(&node.store),
            identifier,
            &mut fetched,
        );
        let looked = timeout(LIMIT, looking).await;
        let evidence = looked.unwrap_or_else(|_| {
            let reason = format!("S3 did not answer within {} s", LIMIT.as_secs());
            Evidence::unread(Timestamp::now(), &reason)
        });
        let failed = evidence.base_backup_error.is_some();
        known.send_modify(|known| {
            known.evidence = Some(evidence.holding(known.evidence.as_ref()));
        });
        let pause = if failed {
            PAUSE
        } else {
            (begin.elapsed() * SHARE).clamp(PAUSE, LONGEST_PAUSE)
        };
        tokio::time::sleep(pause).await;
    }
}

/// What was read of the base backups and of the restore tests.
struct Read {
    newest: Option<(Recoverable, Option<RestoreWork>)>,
    faults: RepositoryFaults,
    extent: ArchiveExtent,
}

/// One look; a proof of another cluster than `system_identifier`, where that is known, is none.
pub(super) async fn look(
    config: &Config,
    repository: &RepositoryHandle,
    store: Option<&Store>,
    system_identifier: Option<u64>,
    fetched: &mut Fetched,
) -> Evidence {
    let begun_at = Timestamp::now();
    let Fetched { manifests, proofs } = fetched;
    let opened = repository.get().await;
    let dumped = async {
        let dumps = Dumps::beside(repository, &config.dump, &config.node).await?;
        dump::newest_complete(&dumps, manifests).await
    };
    let state = &config.node.state_directory;
    let (read, dump, tests) = tokio::join!(
        read(&opened, (state, store), system_identifier),
        dumped,
        tests(&opened, proofs)
    );
    let mut evidence = Evidence::unread(Timestamp::now(), "");
    evidence.dump_error = dump.as_ref().err().map(|error| log::chain(error));
    evidence.dump = dump.ok().and_then(|newest| {
        let (set, at) = newest.full?;
        Some(NewestDump {
            set: set.to_string(),
            at,
            newer_partial: newest.partial.map(|set| set.to_string()),
        })
    });
    evidence.proof_error = tests.as_ref().err().cloned();
    evidence.base_backup_error = read.as_ref().err().cloned();
    if let Ok(Read {
        newest,
        faults,
        mut extent,
    }) = read
    {
        if let Ok(tests) = &tests {
            extent.tests = restore_tests(&tests.proofs);
        }
        evidence.extent = Some(extent);
        (evidence.faults, evidence.base_backup_read_at) = (Some(faults), Some(begun_at));
        let forecast =
            |(_, work): &(Recoverable, Option<RestoreWork>)| forecast(work.as_ref(), &tests);
        evidence.forecast = newest.as_ref().map(forecast);
        evidence.base_backup = newest.map(|(backup, _)| backup);
    }
    if let Ok(tests) = tests {
        let newest = evidence.base_backup.as_ref();
        evidence.proof = tests.newest(system_identifier, newest.map(|backup| &*backup.backup));
    }
    evidence
}

async fn read(
    opened: &Result<Repository, RepositoryError>,
    (state_directory, store): (&Path, Option<&Store>),
    system_identifier: Option<u64>,
) -> Result<Read, String> {
    let now = Timestamp::now();
    let repository = opened.as_ref().map_err(|error| log::chain(error))?;
    let verified = repository.verify(state_directory, Look::Since(store), now);
    let (catalog, verified) = verified.await.map_err(|error| log::chain(&error))?;
    let faults = find_faults((&catalog, &verified), system_identifier, now);
    let newest = catalog.newest_to_judge().map(|newest| {
        let work = RestoreWork::of(&catalog, newest);
        (recoverable(&catalog, &verified, newest), work)
    });
    let extent = extent(&catalog, &verified);
    Ok(Read {
        newest,
        faults,
        extent,
    })
}

fn recoverable(catalog: &Catalog, verified: &Verified, newest: &Backup) -> Recoverable {
    let window = catalog.window(newest);
    let gap = verified.first_gap_of(&newest.name);
    let acknowledged = gap.and_then(|gap| gap.acknowledged.as_ref());
    Recoverable {
        backup: newest.name.clone(),
        finished_at: newest.finished_at,
        unusable: catalog.status(newest).reason,
        to: window.map(|window| ArchiveEnd {
            timeline: window.timeline,
            lsn: window.to_lsn,
            archived_at: window.to,
        }),
        gap: gap.map(Gap::named),
        acknowledged: acknowledged.map(Acknowledgement::told),
    }
}

/// By the same function as `xdb restore --plan`.
fn forecast(work: Option<&RestoreWork>, tests: &Result<Tests, String>) -> RestoreForecast {
    let expected = match (work, tests) {
        (None, _) => Err("the newest base backup cannot be restored".to_owned()),
        (_, Err(reason)) => Err(reason.clone()),
        (Some(work), Ok(tests)) => expect_restore(work, &tests.proofs),
    };
    let time = expected.as_ref().ok();
    RestoreForecast {
        secs: time.map(|time| time.secs),
        low_secs: time.map(|time| time.low_secs),
        high_secs: time.map(|time| time.high_secs),
        throttled: time.is_some_and(|time| time.throttled),
        based_on: match &expected {
            Ok(time) => time.based_on.clone(),
            Err(reason) => reason.clone(),
        },
    }
}

/// The restore tests of this repository, as the bucket tells them.
struct Tests {
    /// Newest first.
    proofs: Vec<repository::Proof>,
    /// The job's last success, where an older xdb left no proof.
    last_success: Option<Success>,
}

async fn tests(
    opened: &Result<Repository, RepositoryError>,
    read: &mut ReadProofs,
) -> Result<Tests, String> {
    let repository = opened.as_ref().map_err(|error| log::chain(error))?;
    let shared = &repository.shared;
    let asked = async {
        let proofs = shared.newest_proofs_since(PROOFS, read).await?;
        let last_success = if proofs.is_empty() {
            shared.last_success(restore_test::JOB.name).await?
        } else {
            None
        };
        Ok((proofs, last_success))
    };
    let asked: Result<_, SharedError> = asked.await;
    let (mut proofs, last_success) = asked.map_err(|error| log::chain(&error))?;
    let repository = repository.location.to_string();
    proofs.retain(|proof| proof.repository == repository);
    Ok(Tests {
        proofs,
        last_success,
    })
}

impl Tests {
    /// The newest that proves its backup, of the cluster `system_identifier` where that is known; `newest_backup` is to be proven.
    fn newest(
        &self,
        system_identifier: Option<u64>,
        newest_backup: Option<&str>,
    ) -> Option<ProvenRestore> {
        let is_of = |theirs: Option<u64>| {
            system_identifier.is_none() || theirs.is_none() || theirs == system_identifier
        };
        let proves = |proof: &&repository::Proof| proof.proves() && is_of(proof.system_identifier);
        let mut all = self.proofs.iter().filter(proves);
        let is_proven = |name| {
            let mut all = self.proofs.iter().filter(proves);
            all.any(|proof| proof.backup == name)
        };
        let newest_backup_proven = newest_backup.map(is_proven);
        if let Some(proof) = all.next() {
            let report = &proof.report.fields;
            return Some(ProvenRestore {
                node: proof.node.clone(),
                at: proof.finished_at(),
                backup: Some(proof.backup.clone()),
                timeline: report.timeline,
                lsn: report.recovered_lsn,
                rto_secs: report.rto_secs,
                rpo_secs: report.rpo_secs,
                newest_backup_proven,
            });
        }
        let success = self.last_success.as_ref();
        let success = success.filter(|it| is_of(it.detail.system_identifier()))?;
        let JobDetail::RestoreTest(report) = &success.detail else {
            return None;
        };
        let report = &report.fields;
        let backup = report.backup.as_deref();
        Some(ProvenRestore {
            node: success.node.clone(),
            at: success.finished_at(),
            backup: backup.map(str::to_owned),
            timeline: None,
            lsn: None,
            rto_secs: report.rto_secs,
            rpo_secs: report.rpo_secs,
            newest_backup_proven: backup.zip(newest_backup).map(|(one, other)| one == other),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;
    use crate::config::{ConfigFile, Sources, load};
    use crate::storage::CLIENTS_MADE;

    /// An S3 that refuses each request: its endpoint, and the count of its requests.
    fn refusing_s3() -> (String, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(
                    b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                );
            }
        });
        (endpoint, requests)
    }

    #[tokio::test]
    async fn all_looks_share_the_client_of_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let (endpoint, requests) = refusing_s3();
        let state = directory.path().to_str().unwrap();
        let given = [
            ("XDB_S3_ENDPOINT", &*endpoint),
            ("XDB_S3_REGION", "us-east-1"),
            ("XDB_S3_ACCESS_KEY_ID", "key"),
            ("XDB_S3_SECRET_ACCESS_KEY", "secret"),
            ("XDB_ARCHIVE_REPOSITORY", "s3://walg/main"),
            ("XDB_DUMP_REPOSITORY", "s3://pgdump/main"),
            ("XDB_NODE_STATE_DIRECTORY", state),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value.into()));
        let sources = Sources {
            file: ConfigFile::Default("/nonexistent/xdb.toml".into()),
            environment_file: "/nonexistent/environment".into(),
            process: BTreeMap::from(given),
            flags: Vec::new(),
        };
        let config = load(&sources).unwrap().config;
        let repository = RepositoryHandle::new(config.repository_settings());
        let (mut fetched, mut asked) = (Fetched::default(), 0);
        for _ in 0..2 {
            let evidence = look(&config, &repository, None, None, &mut fetched).await;
            assert!(evidence.base_backup_error.is_some() && evidence.dump_error.is_some());
            let requests = requests.load(Ordering::SeqCst);
            assert!(requests > asked, "S3 was not asked");
            asked = requests;
        }
        assert_eq!(CLIENTS_MADE.get(), 1);
    }

    #[test]
    fn a_test_that_only_started_the_server_proves_nothing() {
        let proof = |backup: &str, level: &str, passed: bool| {
            let report =
                json!({"backup": backup, "level": level, "passed": passed, "system_identifier": 7});
            let report = report.try_into().unwrap();
            repository::Proof::new("db2", "s3://b/p", (Timestamp::UNIX_EPOCH, 1.0), report).unwrap()
        };
        let mut tests = Tests {
            proofs: vec![
                proof("base_3", "start", true),
                proof("base_3", "full", false),
                proof("base_2", "full", true),
            ],
            last_success: None,
        };
        let newest = |tests: &Tests, of, name| {
            let found = tests.newest(of, Some(name))?;
            Some((found.backup?, found.newest_backup_proven?))
        };
        let found = newest(&tests, Some(7), "base_3");
        assert_eq!(found, Some(("base_2".to_owned(), false)));
        let found = newest(&tests, None, "base_2");
        assert_eq!(found, Some(("base_2".to_owned(), true)));
        assert_eq!(newest(&tests, Some(8), "base_2"), None);
        tests.proofs.truncate(2);
        assert_eq!(newest(&tests, Some(7), "base_3"), None);
    }
}
