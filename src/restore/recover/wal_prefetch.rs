//! WAL fetched ahead of the replay, for `xdb wal-fetch` to take by renaming it. The program would start twice for each
//! segment, fetch some again, and have the disk write each before PostgreSQL may read it.
//!
//! Nothing depends on it: `wal-fetch` fetches and judges each segment that is missing here. A failure only ends the prefetch.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use secrecy::ExposeSecret;
use tokio::sync::{Semaphore, oneshot};

use super::fetch::{NETWORK_LIMIT, network_limit};
use crate::archive::{ASKED, tablespace_made};
use crate::config::S3;
use crate::model::{SegmentSize, WalSegment};
use crate::repository::{catalog, judge_file};
use crate::restore::Setup;
use crate::restore::plan::{Survey, object_suffix, stored_segments};
use crate::restore::scratch::max_prefetched;
use crate::storage::{Bucket, Cause, Location, StorageError};

/// Segments on their way side by side.
const AT_ONCE: usize = 4;
/// Between two checks whether PostgreSQL took one.
const POLL: Duration = Duration::from_millis(10);
/// Between two attempts at one that S3 did not give: a passing fault must not leave the rest of a long recovery to the
/// program, one segment at a time.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The setting for how many segments the program fetches in parallel. With 1 neither the program nor xdb prefetches.
pub(crate) const CONCURRENCY: &str = "WALG_DOWNLOAD_CONCURRENCY";

/// Fetches until it is dropped.
pub(crate) struct WalPrefetch {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WalPrefetch {
    /// Begins to fetch into `directory` what the replay of `survey` will ask for; `None` where that is the program's alone:
    /// the repository is encrypted or of a compression that xdb does not read, or a limit counts the program's bytes.
    pub(crate) fn start(
        setup: &Setup,
        survey: &Survey,
        directory: &Path,
        low_priority: bool,
    ) -> Option<Self> {
        let program = &setup.repository.program;
        let settings = &program.archive.settings;
        let one = settings
            .get(CONCURRENCY)
            .is_some_and(|value| value.expose_secret() == "1");
        let limited = settings.contains_key(NETWORK_LIMIT)
            || (low_priority && network_limit(&setup.settings).is_some());
        if one || limited || program.encrypts() {
            return None;
        }
        let work = PrefetchWork {
            s3: program.s3.clone(),
            location: setup.repository.location.clone(),
            suffix: object_suffix(&program.archive.compression)?,
            size: survey.catalog.wal.size,
            cluster: survey.plan.sentinel.system_identifier,
            directory: directory.to_owned(),
            room: Semaphore::new(max_prefetched(survey.catalog.wal.size)),
        };
        fs::create_dir(directory).ok()?;
        let segments = stored_segments(survey);
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("wal-ahead".to_owned());
        let thread = thread.spawn(move || {
            if low_priority {
                // On Linux of this thread and those it starts; what may not be done is no reason not to run.
                let _ = rustix::process::nice(19);
            }
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            if let Ok(runtime) = runtime {
                runtime.block_on(async {
                    tokio::select! {
                        _ = work.fetch(segments) => {}
                        _ = stopped => {}
                    }
                });
                runtime.shutdown_background();
            }
            // What is half there must not be waited for.
            let _ = fs::remove_dir_all(&work.directory);
        });
        Some(Self {
            stop: Some(stop),
            thread: thread.ok(),
        })
    }
}

impl Drop for WalPrefetch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Whether a segment makes no tablespace; one that does `wal-fetch` refuses.
async fn makes_no_tablespace(segment: PathBuf) -> bool {
    let made = tokio::task::spawn_blocking(move || tablespace_made(&segment)).await;
    matches!(made, Ok(Ok(None)))
}

struct PrefetchWork {
    s3: S3,
    location: Location,
    suffix: &'static str,
    size: SegmentSize,
    /// The system identifier of the cluster, where the backup has it.
    cluster: Option<u64>,
    directory: PathBuf,
    /// A permit for each segment that takes room; one begins only where there is some, and is then read without a pause.
    room: Semaphore,
}

impl PrefetchWork {
    async fn fetch(&self, segments: Vec<WalSegment>) -> Result<Infallible, StorageError> {
        // This thread has a runtime of its own, which a connection must not outlive.
        let bucket = Bucket::open(&self.s3, &self.location.bucket).await?;
        let arriving = stream::iter(segments).map(|segment| self.fetch_one(&bucket, segment));
        let mut arriving = arriving.buffered(AT_ONCE);
        let (mut waiting, mut more) = (VecDeque::new(), true);
        // Beyond the last one, too: what is not taken yet must stay.
        loop {
            tokio::select! {
                arrived = arriving.next(), if more => match arrived {
                    Some(arrived) => waiting.extend(arrived),
                    None => more = false,
                },
                () = tokio::time::sleep(POLL) => self.forget_taken(&mut waiting),
            }
        }
    }

    /// Its name once it is whole; `None` where it is of no use any more, or nothing that may be taken.
    async fn fetch_one(&self, bucket: &Bucket, segment: WalSegment) -> Option<String> {
        let name = segment.name(self.size);
        let key = format!("wal_005/{name}{}", self.suffix);
        let key = self.location.key(&key);
        let part = self.directory.join(format!("{name}.part"));
        let room = self.room.acquire().await.ok()?;
        while !self.was_passed(&name) {
            // From now on `wal-fetch` waits for it. PostgreSQL keeps the file, so its mode is private.
            let _ = fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&part);
            let unpacked = catalog::unpack_into(bucket, &key, part.clone()).await;
            let whole = matches!(&unpacked, Ok(Ok(bytes)) if *bytes == self.size.bytes())
                && judge_file(&name, &part, self.cluster).is_ok()
                && makes_no_tablespace(part.clone()).await;
            if whole && fs::rename(&part, self.directory.join(&name)).is_ok() {
                room.forget();
                return Some(name);
            }
            // `wal-fetch` stops waiting, fetches the segment, and reports the error.
            let _ = fs::remove_file(&part);
            match unpacked {
                Err(error) if !matches!(error.cause(), Some(Cause::NoSuchKey)) => {
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                _ => return None,
            }
        }
        None
    }

    /// PostgreSQL takes them in order: what is before one that it took, it did not want.
    fn forget_taken(&self, waiting: &mut VecDeque<String>) {
        let gone = |name: &String| self.was_passed(name) || !self.directory.join(name).exists();
        if let Some(last) = waiting.iter().rposition(gone) {
            for name in waiting.drain(..=last) {
                let _ = fs::remove_file(self.directory.join(name));
                self.room.add_permits(1);
            }
        }
    }

    /// Whether `wal-fetch` was asked for this one or a later one, and did not find it here.
    fn was_passed(&self, name: &str) -> bool {
        let requested = fs::read_to_string(self.directory.join(ASKED)).unwrap_or_default();
        // Behind the timeline, of which a name says nothing to the order.
        requested.len() == name.len() && requested.get(8..) >= name.get(8..)
    }
}
