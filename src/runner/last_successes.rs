//! The last success of each job that is done once for the cluster, as this process knows it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::jobs::Job;
use crate::repository::Success;

/// The last known success of each job that is done once for the cluster.
#[derive(Debug, Default)]
pub(crate) struct LastSuccesses {
    known: Mutex<HashMap<&'static str, Success>>,
    asked: AtomicBool,
}

impl LastSuccesses {
    pub(crate) fn get(&self, job: &Job) -> Option<Success> {
        self.lock().get(job.name).cloned()
    }

    /// Whether the bucket was asked for all of them since the start, whatever it said.
    pub(crate) fn were_asked_for(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    pub(super) fn keep(&self, job: &'static Job, success: Option<Success>) {
        if let Some(success) = success {
            self.lock().insert(job.name, success);
        }
    }

    pub(super) fn note_asked(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<&'static str, Success>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
