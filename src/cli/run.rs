//! `xdb run`: one job now, as the daemon does it when it is due.

use clap::Args;
use clap::builder::PossibleValuesParser;

use super::exit::{Exit, complain};
use super::handles::Handles;
use super::output::say;
use crate::jobs::{JOBS, Job};
use crate::model::Verdict;
use crate::runner;

#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 it went well, 1 the result is bad, 4 it could not check or run,\n\
                  3 it belongs to the other role, or another run of it is active."
)]
pub(crate) struct Arguments {
    /// The job; `xdb jobs` lists them
    #[arg(value_parser = PossibleValuesParser::new(JOBS.map(|job| job.name)))]
    job: String,
}

impl Arguments {
    pub(crate) fn job(&self) -> Option<&'static Job> {
        Job::named(&self.job)
    }
}

pub(crate) async fn run(job: &'static Job, handles: &Handles) -> anyhow::Result<Exit> {
    let (outcome, not_now) = runner::run_job((&handles.loaded, &handles.repository), job).await?;
    let verdict = outcome.verdict();
    let reason = verdict.reason().unwrap_or_default();
    if not_now {
        complain(
            reason,
            Some("see `xdb jobs`; the daemon retries automatically"),
        );
        return Ok(Exit::Refused);
    }
    let (name, secs) = (job.name, outcome.elapsed.as_secs_f64());
    say(format_args!("{name}: {}, in {secs:.1} s", verdict.word()))?;
    if !reason.is_empty() {
        let hint = match job.is_cluster_wide {
            true => format!("see runbooks/{name}.md"),
            false => "see `xdb check`".to_owned(),
        };
        complain(reason, Some(&hint));
    }
    Ok(match verdict {
        Verdict::Ok => Exit::Good,
        Verdict::Warning(_) | Verdict::Critical(_) => Exit::Bad,
        Verdict::Unknown(_) => Exit::CouldNot,
    })
}
