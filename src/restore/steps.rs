//! The steps of a restore, and how long each took.

use std::fmt;
use std::time::{Duration, Instant};

use bytesize::ByteSize;
use serde::Serialize;

/// Seconds to the millisecond: more would be noise.
pub(crate) fn secs(elapsed: Duration) -> f64 {
    (elapsed.as_secs_f64() * 1000.0).round() / 1000.0
}

/// One part of the work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Step {
    pub name: &'static str,
    pub secs: f64,
    /// What the step moved: stored bytes fetched, WAL replayed, table data read. `None` where it moves none.
    pub bytes: Option<u64>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<10} {:>7.2} s", self.name, self.secs)?;
        match self.bytes {
            Some(bytes) => write!(f, "  {}", ByteSize(bytes)),
            None => Ok(()),
        }
    }
}

/// Is called with each step when it ends.
pub(crate) type OnStep<'a> = &'a mut (dyn FnMut(&Step) + Send + Sync);

/// The steps that have ended.
pub(crate) struct Steps<'a> {
    on_step: OnStep<'a>,
    ended: Vec<Step>,
}

impl<'a> Steps<'a> {
    pub(crate) fn new(on_step: OnStep<'a>) -> Self {
        Self {
            on_step,
            ended: Vec::new(),
        }
    }

    /// Adds the step `name`, which `began` then and ends now.
    pub(crate) fn end(&mut self, name: &'static str, began: Instant, bytes: Option<u64>) {
        let step = Step {
            name,
            secs: secs(began.elapsed()),
            bytes,
        };
        (self.on_step)(&step);
        self.ended.push(step);
    }

    pub(crate) fn into_list(self) -> Vec<Step> {
        self.ended
    }
}
