//! Work that blocks, such as reading a file on a volume that may hang, away from the threads of the runtime.

use std::future::pending;
use std::panic::resume_unwind;

/// Does `work` on a thread where blocking holds up nothing else. A panic there is resumed here.
pub(crate) async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The runtime ends, and this future with it.
            Err(_) => pending().await,
        },
    }
}
