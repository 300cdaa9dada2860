//! Where the store's content is: in its file, or in memory while the daemon cannot use the file.
//!
//! Both have the same tables, so that no caller needs to know. What memory holds is copied back in one
//! transaction as soon as the file can be written again.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::Connection;

use super::fault::{Fault, FileWatch};
use super::open::{file, open_again, open_in_memory, read_what_is_readable};
use super::transfer::{Seed, copy_back, seed};
use super::{StoreError, log_chain};

/// Between two attempts to use the file; doubled after each failure, for as long as the file serves only briefly.
const SHORTEST_PAUSE: Duration = Duration::from_secs(3);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After this time without a failure, the next failure is a new one.
const STEADY: Duration = Duration::from_secs(30);
/// After this time without a failure, the fault is over: a file that fails every few seconds is one lasting fault.
const SETTLED: Duration = Duration::from_secs(5);

/// What the writer thread owns.
pub(super) struct Backing {
    place: Place,
    /// The daemon's; a command line has none, and reports the error instead.
    fallback: Option<Fallback>,
}

enum Place {
    File {
        connection: Connection,
        watch: Option<FileWatch>,
        since: Instant,
    },
    Memory {
        connection: Connection,
        seed: Seed,
        retry_at: Instant,
    },
}

struct Fallback {
    directory: PathBuf,
    fault: Arc<Mutex<Option<Fault>>>,
    /// The last one; zero before the first failure.
    pause: Duration,
}

/// The pause after a failure of a file that had served for `served`.
fn next_pause(before: Duration, served: Duration) -> Duration {
    if served >= STEADY {
        return SHORTEST_PAUSE;
    }
    (before * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
}

impl Backing {
    /// A file that is open; its errors are the caller's.
    pub(super) fn file(connection: Connection) -> Self {
        Self {
            place: Place::File {
                connection,
                watch: None,
                since: Instant::now(),
            },
            fallback: None,
        }
    }

    /// Opens the file in `directory`, or works in memory until that is possible; `fault` says which.
    ///
    /// # Errors
    /// When SQLite cannot even work in memory.
    pub(super) fn serving(
        directory: PathBuf,
        fault: Arc<Mutex<Option<Fault>>>,
    ) -> Result<Self, StoreError> {
        let memory = open_in_memory()?;
        let mut backing = Self {
            place: Place::Memory {
                connection: memory,
                seed: Seed::default(),
                retry_at: Instant::now(),
            },
            fallback: Some(Fallback {
                directory,
                fault,
                pause: Duration::ZERO,
            }),
        };
        backing.take_back();
        backing.seed_from_unusable_file();
        Ok(backing)
    }

    pub(super) fn connection(&mut self) -> &mut Connection {
        match &mut self.place {
            Place::File { connection, .. } | Place::Memory { connection, .. } => connection,
        }
    }

    /// Runs `work` where the content is; after an error of the file, in memory.
    ///
    /// # Errors
    /// Those of `work`.
    pub(super) fn run<T>(
        &mut self,
        work: impl Fn(&mut Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.look_after();
        let error = match work(self.connection()) {
            Err(error) if self.may_fall_back() && error.is_of_file() => error,
            result => return result,
        };
        self.fall_back(&error);
        work(self.connection())
    }

    /// Notices a file that is gone, and takes it back where it can be used again. At least every few seconds.
    pub(super) fn look_after(&mut self) {
        match &mut self.place {
            Place::File {
                watch: Some(watch),
                since,
                ..
            } => {
                if let Err(error) = watch.look() {
                    self.fall_back(&error);
                } else if since.elapsed() >= SETTLED
                    && let Some(fallback) = &self.fallback
                {
                    fallback.recovered();
                }
            }
            Place::Memory { retry_at, .. } if *retry_at <= Instant::now() => self.take_back(),
            _ => {}
        }
    }

    fn may_fall_back(&self) -> bool {
        self.fallback.is_some() && matches!(self.place, Place::File { .. })
    }

    /// Continues in memory with all that can still be read of the file.
    fn fall_back(&mut self, error: &StoreError) {
        let (
            Place::File {
                connection, since, ..
            },
            Some(fallback),
        ) = (&self.place, &mut self.fallback)
        else {
            return;
        };
        let memory = match open_in_memory() {
            Ok(memory) => memory,
            Err(error) => {
                tracing::error!("no store in memory either: {}", log_chain(&error));
                return;
            }
        };
        let seed = seed(connection, &memory, true);
        fallback.pause = next_pause(fallback.pause, since.elapsed());
        fallback.failed(error);
        self.place = Place::Memory {
            connection: memory,
            seed,
            retry_at: Instant::now() + fallback.pause,
        };
    }

    /// Opens the file and copies what memory holds into it.
    fn take_back(&mut self) {
        let (
            Place::Memory {
                connection,
                seed,
                retry_at,
            },
            Some(fallback),
        ) = (&mut self.place, &mut self.fallback)
        else {
            return;
        };
        let taken = open_again(&fallback.directory, Timestamp::now()).and_then(|mut opened| {
            copy_back(connection, seed, &mut opened.connection)?;
            Ok(opened)
        });
        match taken {
            Ok(opened) => {
                if let Some(aside) = opened.set_aside {
                    tracing::warn!(
                        "the state was damaged and begins from what memory holds; the damaged file is {}",
                        aside.display()
                    );
                }
                self.place = Place::File {
                    connection: opened.connection,
                    watch: Some(FileWatch::new(&file(&fallback.directory))),
                    since: Instant::now(),
                };
            }
            Err(error) => {
                fallback.failed(&error);
                fallback.pause = next_pause(fallback.pause, Duration::ZERO);
                *retry_at = Instant::now() + fallback.pause;
            }
        }
    }

    /// At the start: a file that cannot be written may still be readable.
    fn seed_from_unusable_file(&mut self) {
        let (
            Place::Memory {
                connection,
                seed: seeded,
                ..
            },
            Some(fallback),
        ) = (&mut self.place, &self.fallback)
        else {
            return;
        };
        if let Some(readable) = read_what_is_readable(&fallback.directory) {
            *seeded = seed(&readable.connection, connection, readable.is_current);
        }
    }
}

/// SQLite reports a full volume in several ways, not all of which name it.
fn is_full(directory: &Path) -> bool {
    const LEAST: u64 = 64 << 10;
    rustix::fs::statvfs(directory)
        .is_ok_and(|volume| volume.f_bavail.saturating_mul(volume.f_frsize) < LEAST)
}

impl Fallback {
    /// Says so once, and keeps the latest reason.
    fn failed(&self, error: &StoreError) {
        let mut reason = log_chain(error);
        if is_full(&self.directory) {
            reason.push_str("; its volume is full");
        }
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if fault.is_none() {
            tracing::error!(
                "the state store cannot be used, the daemon keeps its state in memory: {reason}; HINT: {}",
                error.hint()
            );
        }
        *fault = Some(Fault {
            since: fault
                .as_ref()
                .map_or_else(Timestamp::now, |known| known.since),
            reason,
            hint: error.hint(),
        });
    }

    fn recovered(&self) {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(over) = fault.take() {
            let secs = Timestamp::now().duration_since(over.since).as_secs();
            tracing::info!(
                "the state store is used again after {secs} s; what memory held is written to it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_serves_only_briefly_is_tried_less_and_less_often() {
        let mut pause = Duration::ZERO;
        for (served, expected) in [(1, 3), (0, 6), (29, 12), (0, 24), (6, 48), (0, 60), (1, 60)] {
            pause = next_pause(pause, Duration::from_secs(served));
            assert_eq!(pause.as_secs(), expected);
        }
        assert_eq!(next_pause(pause, STEADY), SHORTEST_PAUSE);
    }
}
