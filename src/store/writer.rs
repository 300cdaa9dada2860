//! The one thread that writes: SQLite blocks, and takes one writer at a time anyway.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::backing::Backing;
use super::fault::Fault;
use super::open::{open_in_memory, open_once};
use super::{Reading, StoreError, Writing, log_chain, query};

/// Transactions between two truncations of the WAL: long readers would let it grow.
const CHECKPOINT_EVERY: u32 = 1000;
/// An idle writer looks after its file this often.
const IDLE: Duration = Duration::from_secs(3);
/// For one answer of the writer. A volume that hangs blocks its thread, and must not block the daemon.
const DAEMON_DEADLINE: Duration = Duration::from_secs(5);
/// A command line's, which waits for a lock first.
const DEADLINE: Duration = Duration::from_secs(30);

type Work = Box<dyn FnOnce(&mut Backing) + Send>;

/// A handle to the writer; the thread ends, and closes the file, with the last of them.
#[derive(Debug, Clone)]
pub struct Store {
    queue: mpsc::Sender<Work>,
    fault: Arc<Mutex<Option<Fault>>>,
    deadline: Duration,
    /// The writer has not ended the work of a caller that gave up.
    stalled: Arc<AtomicBool>,
    spare: Option<Spare>,
}

/// A store in memory that works while the file's writer is stalled; `None` before it is needed.
type Spare = Arc<Mutex<Option<Box<Store>>>>;

/// A store that was opened for writing.
#[derive(Debug)]
pub struct Opened {
    pub store: Store,
    /// Where the damaged file went that was there before; the store is then empty.
    pub set_aside: Option<PathBuf>,
}

impl Store {
    /// Opens `{state_directory}/xdb.db`, makes it where it is missing, and moves a damaged one aside.
    ///
    /// `now` names what is moved aside.
    ///
    /// # Errors
    /// When the directory is another user's, the file is of a newer xdb, or it cannot be read, written or moved.
    pub fn open(state_directory: &Path, now: Timestamp) -> Result<Opened, StoreError> {
        let opened = open_once(state_directory, now)?;
        Ok(Opened {
            store: Self::of_file(opened.connection),
            set_aside: opened.set_aside,
        })
    }

    /// The daemon's store: `{state_directory}/xdb.db`, or memory for as long as that cannot be used.
    ///
    /// Returns at once. The first work waits until the file is open or proves unusable. Work that fails because of
    /// the file is done again in memory, so `work` may run twice.
    pub fn serve(state_directory: &Path) -> Self {
        let directory = state_directory.to_owned();
        let fault = Arc::new(Mutex::new(None));
        let shown = fault.clone();
        Self::start(fault, DAEMON_DEADLINE, move || {
            Backing::serving(directory, shown)
        })
    }

    /// The same store for work that must continue while the volume hangs. The work is then done in memory, on empty tables.
    /// Memory is dropped when the file answers again.
    #[must_use]
    pub fn with_spare(&self) -> Self {
        Self {
            spare: Some(Spare::default()),
            ..self.clone()
        }
    }

    fn of_file(connection: Connection) -> Self {
        Self::start(Arc::default(), DEADLINE, || Ok(Backing::file(connection)))
    }

    fn start(
        fault: Arc<Mutex<Option<Fault>>>,
        deadline: Duration,
        open: impl FnOnce() -> Result<Backing, StoreError> + Send + 'static,
    ) -> Self {
        let (queue, works) = mpsc::channel::<Work>();
        let stalled = Arc::new(AtomicBool::new(false));
        let stall = stalled.clone();
        std::thread::spawn(move || match open() {
            Ok(backing) => serve_works(&works, backing, &stall),
            Err(error) => tracing::error!("the store's writer ends: {}", log_chain(&error)),
        });
        Self {
            queue,
            fault,
            deadline,
            stalled,
            spare: None,
        }
    }

    /// Why the file is not used at the moment; `None` while it is.
    pub fn fault(&self) -> Option<Fault> {
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.clone()
    }

    /// Runs `work` in one transaction, which an error takes back.
    ///
    /// What was begun is finished even when the caller stops waiting.
    ///
    /// # Errors
    /// Those of `work`; when the transaction cannot begin (another process writes for too long) or end (full disk);
    /// and when the writer does not answer in time: `work` may be done later then.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&Writing<'_>) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        self.run(move |connection| {
            let transaction = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(query("begin to write to"))?;
            let result = work(&Writing(Reading(&transaction)))?;
            transaction.commit().map_err(query("write to"))?;
            Ok(result)
        })
        .await
    }

    /// Runs `work` on one state of the store.
    ///
    /// # Errors
    /// Those of `work`, and when the writer does not answer in time.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Reading<'_>) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        self.run(move |connection| {
            let transaction = connection.transaction().map_err(query("read"))?;
            work(&Reading(&transaction))
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Connection) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        let Some(spare) = &self.spare else {
            return self.run_in_file(work).await;
        };
        // Shared, because it is done in memory while the file's writer may still be at it.
        let work = Arc::new(work);
        let shared = || {
            let work = work.clone();
            move |connection: &mut Connection| work(connection)
        };
        match self.run_in_file(shared()).await {
            Err(StoreError::NoAnswer { .. }) => {}
            answer => {
                *spare.lock().unwrap_or_else(PoisonError::into_inner) = None;
                return answer;
            }
        }
        let memory = {
            let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
            let memory = spare.get_or_insert_with(|| {
                Box::new(Self::start(Arc::default(), self.deadline, || {
                    open_in_memory().map(Backing::file)
                }))
            });
            memory.clone()
        };
        memory.run_in_file(shared()).await
    }

    async fn run_in_file<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Connection) -> Result<T, StoreError> + Send + Sync + 'static,
    ) -> Result<T, StoreError> {
        // What waits for a hung volume would only add up.
        if self.stalled.load(Ordering::Relaxed) {
            return Err(self.no_answer());
        }
        let (sender, receiver) = oneshot::channel();
        let work = Box::new(move |backing: &mut Backing| {
            // The caller may have stopped waiting: the work is done all the same.
            let _ = sender.send(backing.run(work));
        });
        self.queue.send(work).map_err(|_| StoreError::Ended)?;
        let Ok(answer) = timeout(self.deadline, receiver).await else {
            self.stalled.store(true, Ordering::Relaxed);
            self.note_stall();
            return Err(self.no_answer());
        };
        answer.map_err(|_| StoreError::Ended)?
    }

    /// The writer is blocked and cannot set the fault itself. It clears the fault once its file has served for a while.
    fn note_stall(&self) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let error = self.no_answer();
        fault.get_or_insert_with(|| Fault {
            since: Timestamp::now(),
            reason: error.to_string(),
            hint: error.hint(),
        });
    }

    fn no_answer(&self) -> StoreError {
        StoreError::NoAnswer {
            secs: self.deadline.as_secs(),
        }
    }
}

fn serve_works(works: &mpsc::Receiver<Work>, mut backing: Backing, stalled: &AtomicBool) {
    let mut done: u32 = 0;
    loop {
        if stalled.swap(false, Ordering::Relaxed) {
            tracing::info!("the state store answers again");
        }
        // A panic rolls its transaction back, and its caller gets an error. The next work is not affected.
        let worked = match works.recv_timeout(IDLE) {
            Ok(work) => catch_unwind(AssertUnwindSafe(|| work(&mut backing))),
            Err(RecvTimeoutError::Timeout) => {
                catch_unwind(AssertUnwindSafe(|| backing.look_after()))
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        done += u32::from(worked.is_ok());
        if done >= CHECKPOINT_EVERY {
            done = 0;
            // A reader can be in the way; the next time will do.
            let connection = backing.connection();
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_volume_that_hangs_makes_callers_fail_and_not_wait() {
        let (release, released) = mpsc::channel::<()>();
        let store = Store::start(Arc::default(), Duration::from_millis(100), move || {
            let _ = released.recv();
            open_in_memory().map(Backing::file)
        });
        for _ in 0..2 {
            let error = store.read(|reading| reading.alerts()).await.unwrap_err();
            assert!(matches!(error, StoreError::NoAnswer { .. }), "{error}");
        }
        assert!(store.fault().is_some());
        // Work with a spare continues in memory, which keeps its results.
        let alerts = store.with_spare();
        for _ in 0..2 {
            let known = alerts.write(|writing| writing.anchor_outbox(7));
            known.await.unwrap();
        }
        let sequence = async || alerts.read(|reading| reading.last_sequence()).await;
        assert_eq!(sequence().await.unwrap(), 7);
        release.send(()).unwrap();
        for _ in 0..200 {
            if store.read(|reading| reading.alerts()).await.is_ok() {
                assert_eq!(sequence().await.unwrap(), 0, "the file knows nothing of it");
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the store did not answer again");
    }
}
