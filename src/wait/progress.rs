//! How far an attempt came, for the code that ends it at its deadline.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

/// How far an attempt came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Name,
    Connect,
    /// Connected, without a byte from the server: a proxy accepts before it knows its backend.
    Greet,
    Login,
    Ask,
}

/// How far an attempt is, as the parts of an attempt note it.
#[derive(Default)]
pub(super) struct Progress {
    stage: Mutex<Option<Stage>>,
    /// The index of the host that is tried.
    pub(super) host: AtomicUsize,
    /// Something came from the other side of the present connection.
    pub(super) heard: Arc<AtomicBool>,
}

impl Progress {
    fn reached(&self) -> MutexGuard<'_, Option<Stage>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reach(&self, stage: Stage) {
        *self.reached() = Some(stage);
    }

    pub(super) fn has_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    pub(super) fn stage(&self) -> Stage {
        match *self.reached() {
            Some(Stage::Greet) if self.has_heard() => Stage::Login,
            stage => stage.unwrap_or(Stage::Name),
        }
    }

    /// Waits until `limit` has passed without a byte from the other side; for ever when one came.
    pub(super) async fn silence(&self, limit: Duration) {
        sleep(limit).await;
        if self.has_heard() {
            std::future::pending::<()>().await;
        }
    }
}
