//! Whether the recovery brought back the right cluster, on the right timeline, as far as it was to go.

use super::archive_end::{judge_archive_end, stop_record};
use super::identity::{judge_identity, judge_timeline};
use super::target::{judge_lsn_target, judge_time_target};
use crate::restore::plan::{Survey, Until};
use crate::restore::recover::RecoveryEnd;
use crate::restore::scratch::Scratch;
use crate::restore::{RestoreError, RestoreRecord};

/// Judges where the recovery ended; `record` gets the end and the verdicts.
///
/// # Errors
/// [`RestoreError::Refused`] where another server than the restored one answers.
pub(crate) fn judge_recovered(
    record: &mut RestoreRecord,
    scratch: &Scratch,
    survey: &Survey,
    end: &RecoveryEnd,
) -> Result<(), RestoreError> {
    let (server, plan) = (&end.server, &survey.plan);
    if server.data_directory != scratch.data() {
        return Err(RestoreError::Refused {
            reason: format!(
                "the server that answers keeps its data in {}",
                server.data_directory.display()
            ),
            hint: "something else listens on the scratch socket".to_owned(),
        });
    }
    record.system_identifier = Some(server.system_identifier);
    record.timeline = Some(end.timeline);
    record.recovered_lsn = Some(end.lsn);
    record.recovered_to = end.to;
    let live = survey.live.as_ref().ok();
    let live = live.map(|live| live.server.system_identifier);
    let backup = plan.sentinel.system_identifier;
    let identity = judge_identity(server.system_identifier, backup, live);
    record.verifications.add("system_identifier", identity);
    // The target may lie before the switch.
    let switched_at = plan.path.switched_at.filter(|_| plan.until.is_none());
    let timeline = judge_timeline(end, plan.path.timeline, switched_at);
    record.verifications.add("timeline", timeline);
    let reached = match &plan.until {
        Some(Until::Lsn(target)) => {
            let stop = || stop_record(survey, end);
            judge_lsn_target(end.lsn, end.logged, *target, survey.catalog.wal.size, stop)
        }
        Some(until) => judge_time_target(end.to, until),
        None => judge_archive_end(survey, end),
    };
    record.verifications.add("end_reached", reached);
    Ok(())
}
