//! `xdb run`: one job now, as the daemon does it when it is due.

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::exit::{Exit, complain};
use super::output::say;
use super::{backup, dump, prune};
use crate::config::Loaded;
use crate::daemon;
use crate::jobs::Job;
use crate::model::Verdict;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 it went well, 1 what it looked at is bad, 4 it could not look or run,\n\
                  3 it belongs to the other role, or another run of it is active."
)]
pub struct Arguments {
    /// The job; `xdb jobs` lists them
    #[arg(value_parser = PossibleValuesParser::new(Job::ALL.map(Job::name)))]
    job: String,
}

impl Arguments {
    pub fn job(&self) -> Option<Job> {
        Job::named(&self.job)
    }
}

pub async fn run(job: Job, loaded: &Loaded) -> anyhow::Result<Exit> {
    let (outcome, not_now) = daemon::run_job(loaded, job).await?;
    let verdict = outcome.verdict();
    let reason = verdict.reason().unwrap_or_default();
    if not_now {
        complain(
            reason,
            Some("see `xdb jobs`; the daemon retries automatically"),
        );
        return Ok(Exit::Refused);
    }
    let (name, secs) = (job.name(), outcome.elapsed.as_secs_f64());
    say(format_args!("{name}: {}, in {secs:.1} s", verdict.word()))?;
    if !reason.is_empty() {
        let hint = match job {
            Job::Checks => "see `xdb check`".to_owned(),
            _ => format!("see runbooks/{name}.md"),
        };
        complain(reason, Some(&hint));
    }
    Ok(match verdict {
        Verdict::Ok => Exit::Good,
        Verdict::Warning(_) | Verdict::Critical(_) => Exit::Bad,
        Verdict::Unknown(_) => Exit::CouldNot,
    })
}

/// After a signal: as the job's own verb.
pub async fn clean_up(job: Job, loaded: &Loaded) {
    match job {
        Job::BaseBackup => backup::clean_up(loaded).await,
        Job::Dump => dump::clean_up(&loaded.config).await,
        Job::Prune => prune::clean_up(loaded).await,
        Job::RestoreTest | Job::DumpTest | Job::Checks => {}
    }
}
