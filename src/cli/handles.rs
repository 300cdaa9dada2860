//! What a verb works with. It is opened here alone: a verb's own file takes it, and makes no client.

use std::path::PathBuf;

use tokio::time::timeout;

use super::exit::{Exit, complain};
use super::signals::until_interrupted;
use crate::config::{self, Config, Flag, Loaded, Sources};
use crate::daemon::CLEAN_UP;
use crate::dump::{DumpError, Dumps};
use crate::jobs::{Job, JobRun};
use crate::repository::RepositoryHandle;
use crate::runner;

/// The configuration, and the repository that it names: opened at its first use, and once.
#[derive(Debug)]
pub(crate) struct Handles {
    pub(crate) loaded: Loaded,
    pub(crate) repository: RepositoryHandle,
}

impl Handles {
    pub(super) fn new(loaded: Loaded) -> Self {
        Self {
            repository: RepositoryHandle::new(loaded.config.repository_settings()),
            loaded,
        }
    }

    pub(crate) fn config(&self) -> &Config {
        &self.loaded.config
    }

    /// The dumps of the same cluster, through the same client.
    ///
    /// # Errors
    /// As [`Dumps::beside`].
    pub(crate) async fn dumps(&self) -> Result<Dumps, DumpError> {
        let config = self.config();
        Dumps::beside(&self.repository, &config.dump, &config.node).await
    }

    /// Runs the `work` of `job`, publishes its outcome as the daemon would, and returns its result.
    pub(crate) async fn run_once<T>(
        &self,
        job: &'static Job,
        work: impl Future<Output = (T, JobRun)>,
    ) -> T {
        runner::run_once((&self.loaded, &self.repository), job, work).await
    }

    /// After a signal: gives up what an interrupted run of `job` left in the bucket.
    async fn clean_up(&self, job: &Job) {
        let Some(clean_up) = &job.clean_up else {
            return;
        };
        let cleaning = (clean_up.run)(self.config(), &self.repository);
        if !matches!(timeout(CLEAN_UP, cleaning).await, Ok(Ok(()))) {
            complain(clean_up.may_be_left, Some(clean_up.later));
        }
    }
}

/// Where the configuration of a verb is.
pub(super) struct Start {
    /// The file that `--config` names.
    pub(super) file: Option<PathBuf>,
}

impl Start {
    pub(super) fn sources(&self) -> Sources {
        Sources::from_process(self.file.clone())
    }

    /// The configuration, with `flags` laid over it.
    pub(super) fn load(&self, flags: Vec<Flag>) -> anyhow::Result<Loaded> {
        let mut sources = self.sources();
        sources.flags = flags;
        let loaded = config::load(&sources)?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        Ok(loaded)
    }

    /// The same for a verb that shows faults, which must not end at one that it could show.
    fn load_with_faults(&self) -> anyhow::Result<Loaded> {
        let loaded = config::load_to_serve(&self.sources())?;
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        for fault in &loaded.faults {
            tracing::warn!("{} (HINT: {})", fault.message, fault.hint);
        }
        Ok(loaded)
    }

    /// Runs `verb`; after a signal `job`, where it works as one, is cleaned up.
    pub(super) fn run(
        &self,
        flags: Vec<Flag>,
        job: Option<&'static Job>,
        verb: impl AsyncFnOnce(&Handles) -> anyhow::Result<Exit>,
    ) -> anyhow::Result<Exit> {
        let handles = Handles::new(self.load(flags)?);
        let clean_up = async {
            if let Some(job) = job {
                handles.clean_up(job).await;
            }
        };
        until_interrupted(verb(&handles), clean_up)
    }

    /// Runs a `verb` that shows what is wrong.
    pub(super) fn run_with_faults(
        &self,
        verb: impl AsyncFnOnce(&Handles) -> anyhow::Result<Exit>,
    ) -> anyhow::Result<Exit> {
        let handles = Handles::new(self.load_with_faults()?);
        until_interrupted(verb(&handles), async {})
    }
}
