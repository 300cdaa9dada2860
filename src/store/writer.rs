//! The one thread that writes: SQLite blocks, and takes one writer at a time anyway.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::backing::Backing;
use super::fault::Fault;
use super::{Reading, StoreError, Writing, log_chain, query};

/// Transactions between two truncations of the WAL: long readers would let it grow.
const CHECKPOINT_EVERY: u32 = 1000;
/// An idle writer looks after its file this often.
const IDLE: Duration = Duration::from_secs(3);

type Work = Box<dyn FnOnce(&mut Backing) + Send>;

/// A handle to the writer; the thread ends, and closes the file, with the last of them.
#[derive(Debug, Clone)]
pub struct Store {
    queue: mpsc::Sender<Work>,
    fault: Arc<Mutex<Option<Fault>>>,
}

impl Store {
    /// The daemon's store: `{state_directory}/xdb.db`, or memory for as long as that cannot be used.
    ///
    /// Returns at once. The first work waits until the file is open or proves unusable. Work that fails because of
    /// the file is done again in memory, so `work` may run twice.
    pub fn serve(state_directory: &Path) -> Self {
        let directory = state_directory.to_owned();
        let fault = Arc::new(Mutex::new(None));
        let shown = fault.clone();
        Self::start(fault, move || Backing::serving(directory, shown))
    }

    pub(super) fn of_file(connection: Connection) -> Self {
        Self::start(Arc::default(), || Ok(Backing::file(connection)))
    }

    fn start(
        fault: Arc<Mutex<Option<Fault>>>,
        open: impl FnOnce() -> Result<Backing, StoreError> + Send + 'static,
    ) -> Self {
        let (queue, works) = mpsc::channel::<Work>();
        std::thread::spawn(move || match open() {
            Ok(backing) => serve_works(&works, backing),
            Err(error) => tracing::error!("the store's writer ends: {}", log_chain(&error)),
        });
        Self { queue, fault }
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
    /// Those of `work`, and when the transaction cannot begin (another process writes for over 5 s)
    /// or end (full disk).
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl Fn(&Writing<'_>) -> Result<T, StoreError> + Send + 'static,
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
    /// Those of `work`.
    pub async fn read<T: Send + 'static>(
        &self,
        work: impl Fn(&Reading<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(move |connection| {
            let transaction = connection.transaction().map_err(query("read"))?;
            work(&Reading(&transaction))
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let work = Box::new(move |backing: &mut Backing| {
            // The caller may have stopped waiting: the work is done all the same.
            let _ = sender.send(backing.run(work));
        });
        self.queue.send(work).map_err(|_| StoreError::Ended)?;
        receiver.await.map_err(|_| StoreError::Ended)?
    }
}

fn serve_works(works: &mpsc::Receiver<Work>, mut backing: Backing) {
    let mut done: u32 = 0;
    loop {
        // A panic rolls its transaction back, and its caller gets an error; the next goes on.
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
