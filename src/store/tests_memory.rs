//! The daemon's store while its file cannot be used, and after.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;

use super::tests::{alert, run_of};
use super::*;
use crate::model::AlertKey;

fn key(check: &str) -> AlertKey {
    AlertKey::parse(&format!("{check}/db1/")).unwrap()
}

/// Waits until the file is used again, or no more.
async fn wait_for(store: &Store, on_file: bool) {
    for _ in 0..400 {
        // Any work has the writer look after its file.
        store.read(|_| Ok(())).await.unwrap();
        if store.fault().is_none() == on_file {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not within 20 s: {:?}", store.fault());
}

async fn raise(store: &Store, check: &'static str) {
    store
        .write(move |writing| {
            writing.set_alert(&key(check), Some(&alert().1))?;
            writing.queue_event(check).map(|_| ())
        })
        .await
        .unwrap();
}

async fn end(store: &Store, check: &'static str) {
    let work = move |writing: &Writing<'_>| writing.set_alert(&key(check), None);
    store.write(work).await.unwrap();
}

/// Checks of the standing alerts, jobs that ran, and what waits for Redis, as another process reads them.
fn kept(directory: &Path) -> (Vec<String>, Vec<String>, Vec<(i64, String)>) {
    let reader = Reader::open(directory).unwrap().unwrap();
    let reading = reader.reading();
    let alerts = reading.alerts().unwrap().into_iter();
    let runs = reading.runs(None, 100).unwrap().into_iter();
    let queued = reading.queued().unwrap().into_iter();
    (
        alerts.map(|(key, _)| key.check).collect(),
        runs.rev().map(|run| run.job).collect(),
        queued.map(|one| (one.seq, one.event)).collect(),
    )
}

fn events(expected: &[(i64, &str)]) -> Vec<(i64, String)> {
    let owned = |(seq, event): &(i64, &str)| (*seq, (*event).to_owned());
    expected.iter().map(owned).collect()
}

/// A store with the alerts `a` and `b`, one run, and two events of which the first was delivered.
async fn filled(directory: &TempDir) -> Store {
    let store = Store::serve(directory.path());
    raise(&store, "a").await;
    raise(&store, "b").await;
    store
        .write(|writing| {
            writing.anchor_outbox(0)?;
            writing.remove_event(1)?;
            writing.set_fact("known", "3")?;
            writing.record_run(&run_of("dump", 1, true))
        })
        .await
        .unwrap();
    assert_eq!(store.fault(), None);
    store
}

#[tokio::test]
async fn a_locked_store_goes_on_in_memory_and_is_taken_back_with_all_that_happened() {
    let directory = TempDir::new().unwrap();
    let store = filled(&directory).await;
    let other = Connection::open(directory.path().join("xdb.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();

    raise(&store, "c").await;
    let fault = store.fault().expect("the lock is noticed");
    assert!(fault.reason.contains("locked"), "{fault:?}");
    end(&store, "a").await;
    store
        .write(|writing| {
            assert_eq!(writing.next_event()?.unwrap().event, "b");
            writing.remove_event(2)?;
            writing.record_run(&run_of("prune", 2, false))
        })
        .await
        .unwrap();
    let known = store.read(|reading| reading.fact("known")).await;
    assert_eq!(known.unwrap().as_deref(), Some("3"));
    // A command line ended `b` while it held the file.
    other
        .execute("DELETE FROM alerts WHERE key LIKE 'b/%'", [])
        .unwrap();
    other.execute_batch("COMMIT").unwrap();

    wait_for(&store, true).await;
    let (alerts, runs, queued) = kept(directory.path());
    assert_eq!(alerts, ["c"]);
    assert_eq!(runs, ["dump", "prune"]);
    assert_eq!(queued, events(&[(3, "c")]));
    raise(&store, "d").await;
    assert_eq!(kept(directory.path()).2, events(&[(3, "c"), (4, "d")]));
}

#[tokio::test]
async fn events_of_a_command_line_meanwhile_come_first_and_no_number_is_used_twice() {
    let directory = TempDir::new().unwrap();
    let store = filled(&directory).await;
    let other = Connection::open(directory.path().join("xdb.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    raise(&store, "c").await;
    other
        .execute("INSERT INTO outbox (event) VALUES ('by hand')", [])
        .unwrap();
    other.execute_batch("COMMIT").unwrap();
    wait_for(&store, true).await;
    let queued = kept(directory.path()).2;
    assert_eq!(queued, events(&[(2, "b"), (4, "by hand"), (5, "c")]));
}

#[tokio::test]
async fn a_deleted_cut_or_overwritten_file_is_written_again_from_what_was_known() {
    type Harm = fn(&Path);
    let harms: [(&str, Harm); 4] = [
        ("deleted", |directory| {
            for entry in std::fs::read_dir(directory).unwrap() {
                std::fs::remove_file(entry.unwrap().path()).unwrap();
            }
        }),
        ("only the file", |directory| {
            std::fs::remove_file(directory.join("xdb.db")).unwrap();
        }),
        ("cut", |directory| {
            let mut options = std::fs::File::options();
            let file = options.write(true).open(directory.join("xdb.db"));
            file.unwrap().set_len(100).unwrap();
        }),
        ("replaced", |directory| {
            std::fs::write(directory.join("other"), b"no store at all").unwrap();
            std::fs::rename(directory.join("other"), directory.join("xdb.db")).unwrap();
        }),
    ];
    // Side by side: each takes the pauses between two attempts to open the file.
    let each = harms.map(|(what, harm)| async move {
        let directory = TempDir::new().unwrap();
        let store = filled(&directory).await;
        store
            .write(|writing| {
                // Something must be in the file itself.
                (0..3000).try_for_each(|_| writing.set_fact("fact", &"x".repeat(2000)))
            })
            .await
            .unwrap();
        harm(directory.path());
        wait_for(&store, false).await;
        raise(&store, "c").await;
        wait_for(&store, true).await;
        let (alerts, runs, queued) = kept(directory.path());
        assert_eq!(alerts, ["a", "b", "c"], "{what}");
        assert_eq!(runs, ["dump"], "{what}");
        assert_eq!(queued, events(&[(2, "b"), (3, "c")]), "{what}");
        raise(&store, "d").await;
        assert_eq!(kept(directory.path()).0.len(), 4, "{what}");
    });
    futures_util::future::join_all(each).await;
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_works_from_the_start() {
    let directory = TempDir::new().unwrap();
    drop(filled(&directory).await);
    let path = directory.path().join("xdb.db");
    let other = Connection::open(&path).unwrap();
    other.pragma_update(None, "user_version", 4711).unwrap();
    let store = Store::serve(directory.path());
    raise(&store, "c").await;
    let fault = store.fault().unwrap();
    assert!(fault.reason.contains("version 4711"), "{fault:?}");
    let alerts = store.read(|reading| reading.alerts()).await.unwrap();
    assert_eq!(alerts.len(), 1, "what a newer xdb wrote is not interpreted");
    other.pragma_update(None, "user_version", 3).unwrap();
    wait_for(&store, true).await;
    // Its own last number was 1, in the file it is 2: what waited there comes first.
    let (alerts, _, queued) = kept(directory.path());
    assert_eq!(alerts, ["a", "b", "c"]);
    assert_eq!(queued, events(&[(3, "b"), (4, "c")]));
}

#[tokio::test]
async fn a_file_that_is_locked_at_the_start_is_read_all_the_same() {
    let directory = TempDir::new().unwrap();
    drop(filled(&directory).await);
    let other = Connection::open(directory.path().join("xdb.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let store = Store::serve(directory.path());
    let runs = store.read(|reading| reading.runs(Some("dump"), 9)).await;
    assert_eq!(runs.unwrap(), [run_of("dump", 1, true)]);
    assert!(store.fault().unwrap().since <= Timestamp::now());
    let seq = store.write(|writing| writing.queue_event("next")).await;
    assert_eq!(seq.unwrap(), 3);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_a_fault_and_no_end() {
    let directory = TempDir::new().unwrap();
    let state = directory.path().join("state");
    std::fs::write(&state, "a file").unwrap();
    let store = Store::serve(&state);
    raise(&store, "a").await;
    assert!(store.fault().unwrap().reason.contains("directory"));
    std::fs::remove_file(&state).unwrap();
    wait_for(&store, true).await;
    assert_eq!(kept(&state).0, ["a"]);
}

/// A file as an xdb of that version left it, with the alert `name` raised.
fn left_by_version(directory: &Path, version: u32, name: &str) -> Connection {
    let steps = [include_str!("schema.sql"), include_str!("samples.sql")];
    let file = Connection::open(directory.join("xdb.db")).unwrap();
    file.pragma_update(None, "journal_mode", "WAL").unwrap();
    for step in steps.iter().take(version as usize) {
        file.execute_batch(step).unwrap();
    }
    file.pragma_update(None, "user_version", version).unwrap();
    let insert = "INSERT INTO alerts (key, severity, since_us, raised_us, reason) VALUES (?1, 'critical', 0, 0, 'down')";
    file.execute(insert, [key(name).to_string()]).unwrap();
    file
}

#[tokio::test]
async fn what_an_older_xdb_raised_stands_also_where_its_file_cannot_be_brought_up_to_date() {
    for version in [1, 2] {
        let directory = TempDir::new().unwrap();
        let other = left_by_version(directory.path(), version, "before");
        // A command line of another user, for example, only reads.
        let reader = Reader::open(directory.path()).unwrap().unwrap();
        let reading = reader.reading();
        let (found, state) = reading.alerts().unwrap().remove(0);
        assert_eq!(found, key("before"));
        assert!(state.notice.told.is_some(), "{state:?}");
        assert_eq!(reading.alert(&found).unwrap(), Some(state));
        assert!(reading.silences().unwrap().is_empty() && reading.notices().unwrap().is_empty());
        assert!(reading.next_notice("page").unwrap().is_none());
        assert!(reading.samples().unwrap().is_empty());

        // The daemon cannot write it: it works in memory, with what stood.
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let store = Store::serve(directory.path());
        let alerts = store.read(|reading| reading.alerts()).await.unwrap();
        let fault = store.fault().expect("the lock is noticed");
        assert_eq!(alerts.len(), 1, "{version}: {fault:?}");
        raise(&store, "later").await;
        other.execute_batch("ROLLBACK").unwrap();
        wait_for(&store, true).await;
        assert_eq!(kept(directory.path()).0, ["before", "later"]);
        end(&store, "before").await;
        assert_eq!(kept(directory.path()).0, ["later"]);
    }
}
