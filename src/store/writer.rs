//! The one thread that writes: SQLite blocks, and takes one writer at a time anyway.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::{Reading, StoreError, Writing, query};

/// Transactions between two truncations of the WAL: long readers would let it grow.
const CHECKPOINT_EVERY: u32 = 1000;

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// A handle to the writer; the thread ends, and closes the file, with the last of them.
#[derive(Debug, Clone)]
pub struct Store {
    queue: mpsc::Sender<Work>,
}

impl Store {
    pub(super) fn start(mut connection: Connection) -> Self {
        let (queue, works) = mpsc::channel::<Work>();
        std::thread::spawn(move || {
            let mut done: u32 = 0;
            for work in works {
                // A panic rolls its transaction back, and its caller gets an error; the next goes on.
                let _ = catch_unwind(AssertUnwindSafe(|| work(&mut connection)));
                done += 1;
                if done == CHECKPOINT_EVERY {
                    done = 0;
                    // A reader can be in the way; the next time will do.
                    let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
                }
            }
        });
        Self { queue }
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
        work: impl FnOnce(&Writing<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(|connection| {
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
        work: impl FnOnce(&Reading<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.run(|connection| {
            let transaction = connection.transaction().map_err(query("read"))?;
            work(&Reading(&transaction))
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let work = Box::new(move |connection: &mut Connection| {
            // Nobody waits any more: the work is done all the same.
            let _ = sender.send(work(connection));
        });
        self.queue.send(work).map_err(|_| StoreError::Ended)?;
        receiver.await.map_err(|_| StoreError::Ended)?
    }
}
