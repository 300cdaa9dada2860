//! The store through its handles, on files of its own.

use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::model::{AlertKey, AlertState, Notice, Outcome, Run, Scope, Severity, Verdict};

fn now() -> Timestamp {
    "2026-05-13T10:14:29.5Z".parse().unwrap()
}

fn open(directory: &TempDir) -> Store {
    let opened = Store::open(directory.path(), now()).unwrap();
    assert_eq!(opened.set_aside, None);
    opened.store
}

pub(super) fn run_of(job: &str, seconds: i64, succeeded: bool) -> Run {
    let outcome = Outcome {
        job: job.to_owned(),
        target: String::new(),
        started_at: now() + Duration::from_secs(seconds.unsigned_abs()),
        elapsed: Duration::from_millis(1500),
        findings: Vec::new(),
    };
    Run {
        verdict: Verdict::Critical(format!("run {seconds}")),
        ..Run::new(&outcome, succeeded, None)
    }
}

pub(super) fn alert() -> (AlertKey, AlertState) {
    let key = AlertKey {
        check: "lag".to_owned(),
        scope: Scope::Cluster,
        object: "db2/slot".to_owned(),
    };
    let state = AlertState {
        severity: Severity::Critical,
        since: now(),
        raised_at: Some(now() + Duration::from_secs(30)),
        reason: "90 s behind".to_owned(),
        value: Some(90.25),
        threshold: Some(60.0),
        runbook: Some("lag.md".to_owned()),
        notice: Notice::known(Severity::Critical, Some(now() + Duration::from_secs(30))),
    };
    (key, state)
}

#[tokio::test]
async fn what_is_written_is_there_after_a_restart() {
    let directory = TempDir::new().unwrap();
    let (key, state) = alert();
    let pending = AlertState {
        raised_at: None,
        notice: Notice::default(),
        value: None,
        ..state.clone()
    };
    let other = AlertKey {
        object: String::new(),
        ..key.clone()
    };
    let store = open(&directory);
    let (alerts, run) = (
        vec![(other.clone(), pending), (key.clone(), state)],
        run_of("dump", 1, true),
    );
    let written = (alerts.clone(), run.clone());
    store
        .write(move |writing| {
            for (key, state) in &written.0 {
                writing.set_alert(key, Some(state))?;
            }
            writing.record_run(&written.1)?;
            writing.record_run(&run_of("dump", 2, false))?;
            assert_eq!(writing.queue_event("{}")?, 1);
            Ok(())
        })
        .await
        .unwrap();
    drop(store);

    let reader = Reader::open(directory.path()).unwrap().unwrap();
    let reading = reader.reading();
    assert_eq!(reading.alerts().unwrap(), alerts);
    assert_eq!(reading.alert(&key).unwrap().as_ref(), Some(&alerts[1].1));
    assert_eq!(
        reading.runs(Some("dump"), 10).unwrap(),
        [run_of("dump", 2, false), run.clone()]
    );
    assert_eq!(reading.runs(Some("prune"), 10).unwrap(), []);
    assert_eq!(reading.runs(None, 1).unwrap().len(), 1);

    let store = open(&directory);
    store
        .write(move |writing| writing.set_alert(&key, None))
        .await
        .unwrap();
    // The reader sees what was written beside it.
    assert_eq!(reading.alerts().unwrap(), alerts[..1]);
}

#[tokio::test]
async fn an_error_or_a_panic_takes_the_whole_transaction_back_and_the_writer_goes_on() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    let failed = store
        .write(|writing| {
            writing.queue_event("lost")?;
            Err::<(), _>(StoreError::Content { what: "a test" })
        })
        .await;
    assert!(matches!(failed, Err(StoreError::Content { .. })));
    let panicked = store
        .write(|writing| -> Result<(), StoreError> {
            writing.queue_event("lost")?;
            panic!("on purpose")
        })
        .await;
    assert!(matches!(panicked, Err(StoreError::Ended)));
    store
        .write(|writing| writing.queue_event("kept"))
        .await
        .unwrap();
    let next = store.read(|reading| reading.next_event()).await.unwrap();
    assert_eq!(next.unwrap().event, "kept");
    let queued = store.read(|reading| reading.queued()).await.unwrap();
    assert_eq!(queued.len(), 1);
}

#[tokio::test]
async fn the_oldest_runs_of_each_job_are_forgotten() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    store
        .write(|writing| {
            writing.record_run(&run_of("prune", 0, true))?;
            writing.record_run(&run_of("dump", 0, true))?;
            for second in 1..=i64::from(KEPT_RUNS) {
                writing.record_run(&run_of("dump", second, false))?;
            }
            Ok(())
        })
        .await
        .unwrap();
    let runs = |job: &'static str| store.read(move |reading| reading.runs(Some(job), u32::MAX));
    let dumps = runs("dump").await.unwrap();
    assert_eq!(dumps.len(), KEPT_RUNS as usize);
    assert_eq!(dumps.last(), Some(&run_of("dump", 1, false)));
    assert_eq!(runs("prune").await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_damaged_file_is_moved_aside_and_the_store_begins_anew() {
    for offset in [0, 4096 * 3] {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("xdb.db");
        let store = open(&directory);
        store
            .write(|writing| {
                (0..2000).try_for_each(|_| writing.queue_event("an event").map(|_| ()))
            })
            .await
            .unwrap();
        drop(store);
        // The last handle closes the file, in a thread of its own.
        while path.with_file_name("xdb.db-wal").exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[offset..offset + 200].fill(0xAA);
        std::fs::write(&path, &bytes).unwrap();

        if offset == 0 {
            let error = Reader::open(directory.path()).unwrap_err();
            assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
        }
        let opened = Store::open(directory.path(), now()).unwrap();
        let aside = opened.set_aside.expect("the damage is found");
        assert_eq!(
            aside.file_name().unwrap(),
            "xdb.db.damaged-20260513T101429Z"
        );
        assert_eq!(std::fs::read(aside).unwrap(), bytes);
        let queued = opened.store.read(|reading| reading.queued()).await.unwrap();
        assert!(queued.is_empty());
    }
}

#[test]
fn a_file_of_a_newer_xdb_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    drop(open(&directory));
    let path = directory.path().join("xdb.db");
    let connection = Connection::open(&path).unwrap();
    connection
        .pragma_update(None, "user_version", 4711)
        .unwrap();
    for error in [
        Store::open(directory.path(), now()).unwrap_err(),
        Reader::open(directory.path()).unwrap_err(),
    ] {
        assert!(
            matches!(error, StoreError::Newer { found: 4711, .. }),
            "{error:?}"
        );
        assert!(error.hint().contains("newer xdb"));
    }
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
}

#[test]
fn where_nothing_ran_there_is_nothing_to_read_and_where_no_directory_can_be_there_is_an_error() {
    let directory = TempDir::new().unwrap();
    assert!(Reader::open(directory.path()).unwrap().is_none());
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Store::open(&file, now()).unwrap_err();
    assert!(matches!(error, StoreError::Directory { .. }), "{error:?}");
}

#[test]
fn two_processes_may_make_and_write_the_store_at_once() {
    let directory = TempDir::new().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let store = Store::open(directory.path(), now()).unwrap().store;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .build()
                    .unwrap();
                for _ in 0..25 {
                    runtime
                        .block_on(store.write(|writing| writing.queue_event("x")))
                        .unwrap();
                }
            });
        }
    });
    let reader = Reader::open(directory.path()).unwrap().unwrap();
    let reading = reader.reading();
    assert_eq!(
        (
            reading.queued().unwrap().len(),
            reading.last_sequence().unwrap()
        ),
        (100, 100)
    );
}

#[tokio::test]
async fn the_outbox_goes_on_after_what_redis_has_seen() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    store
        .write(|writing| {
            writing.queue_event("a")?;
            writing.queue_event("b")?;
            // A new store, and Redis has seen 500 of the one before.
            writing.anchor_outbox(500)?;
            assert_eq!(writing.next_event()?.unwrap().seq, 501);
            assert_eq!(writing.queue_event("c")?, 503);
            writing.anchor_outbox(502)?;
            writing.anchor_outbox(0)?;
            assert_eq!(writing.next_event()?.unwrap().seq, 501);
            // An old copy of the file took its place.
            writing.anchor_outbox(900)?;
            assert_eq!(writing.next_event()?.unwrap().event, "a");
            assert!(writing.next_event()?.unwrap().seq > 900);
            for _ in 0..3 {
                let next = writing.next_event()?.unwrap();
                writing.remove_event(next.seq)?;
            }
            assert_eq!(writing.next_event()?, None);
            let last = writing.last_sequence()?;
            assert_eq!(writing.queue_event("d")?, last + 1);
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn an_outbox_that_nobody_empties_stays_bounded() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    store
        .write(|writing| {
            for _ in 0..OUTBOX_LIMIT + 5 {
                writing.queue_event("x")?;
            }
            assert_eq!(
                writing.queued()?.len(),
                usize::try_from(OUTBOX_LIMIT).unwrap()
            );
            assert_eq!(writing.next_event()?.unwrap().seq, 6);
            Ok(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_role_that_is_seen_for_the_first_time_is_no_change() {
    let directory = TempDir::new().unwrap();
    let (first, later) = (Timestamp::UNIX_EPOCH, Timestamp::from_second(60).unwrap());
    let see = async |identifier, in_recovery, now| {
        // Each time a new process.
        let see = move |store: &Writing<'_>| store.see_role(identifier, in_recovery, now);
        open(&directory).write(see).await.unwrap()
    };
    assert!(!see(7, true, first).await);
    assert!(!see(7, true, later).await);
    // Another cluster in the same place.
    assert!(!see(8, false, later).await);
    let changed = async |identifier| {
        let read = move |store: &Reading<'_>| store.role_changed_at(identifier);
        open(&directory).read(read).await.unwrap()
    };
    assert_eq!(changed(7).await, None);
    assert!(see(7, false, later).await);
    assert!(!see(7, false, Timestamp::MAX).await);
    assert_eq!((changed(7).await, changed(8).await), (Some(later), None));
}

#[tokio::test]
async fn the_last_good_run_is_found_behind_bad_ones() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    let runs = [(1, true), (2, true), (3, false), (4, false)];
    store
        .write(move |store| {
            for (second, succeeded) in runs {
                store.record_run(&run_of("dump", second, succeeded))?;
            }
            Ok(())
        })
        .await
        .unwrap();
    let good = async |job| {
        store
            .read(move |store| store.last_good_run(job))
            .await
            .unwrap()
    };
    assert_eq!(good("dump").await, Some(run_of("dump", 2, true)));
    assert_eq!(good("prune").await, None);
}

#[tokio::test]
async fn a_catalog_is_kept_for_each_repository_until_all_are_forgotten() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory);
    for (origin, content) in [("s3://a", "1"), ("s3://b", "2"), ("s3://a", "3")] {
        let keep = move |writing: &Writing<'_>| writing.keep_catalog(origin, content);
        store.write(keep).await.unwrap();
    }
    let at = Timestamp::UNIX_EPOCH;
    store.write(move |w| w.see_role(7, true, at)).await.unwrap();
    let changed = store.write(move |w| w.see_role(7, false, at)).await;
    assert!(changed.unwrap());
    let of = |origin: &'static str| store.read(move |reading| reading.catalog(origin));
    assert_eq!(of("s3://a").await.unwrap().as_deref(), Some("3"));
    assert_eq!(of("s3://b").await.unwrap().as_deref(), Some("2"));
    assert_eq!(of("s3://").await.unwrap(), None);
    store.write(|w| w.forget_catalogs()).await.unwrap();
    assert_eq!(of("s3://a").await.unwrap(), None);
    assert_eq!(of("s3://b").await.unwrap(), None);
    let known = store.read(|reading| reading.role_changed_at(7)).await;
    assert_eq!(known.unwrap(), Some(at));
}
