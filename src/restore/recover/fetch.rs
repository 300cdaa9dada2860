//! The fetch of a backup by the program, and why one failed: looked up in the bucket, not read from the program's words.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::config::RestoreTest;
use crate::process;
use crate::repository::catalog::{self, Backup, Parts};
use crate::repository::set_segment_size;
use crate::restore::plan::Survey;
use crate::restore::scratch::{Scratch, free_bytes};
use crate::restore::{RestoreError, Setup};

/// Both programs read it.
const RETRIES: &str = "WALG_DOWNLOAD_FILE_RETRIES";

/// Bytes a second; both programs read it.
pub(crate) const NETWORK_LIMIT: &str = "WALG_NETWORK_RATE_LIMIT";

/// `restore_test.network_limit_mib` as the program reads it.
pub(crate) fn network_limit(settings: &RestoreTest) -> Option<String> {
    let limit = settings.network_limit_mib?;
    Some((u64::from(limit) << 20).to_string())
}

/// Fetches the backup that was planned into `scratch`; a low-priority fetch yields to the live server.
///
/// # Errors
/// When the program fails: for want of room, because S3 was lost, or because a tar part is damaged.
pub(crate) async fn fetch(
    setup: &Setup,
    scratch: &Scratch,
    survey: &Survey,
    low_priority: bool,
    limit: Duration,
) -> Result<(), RestoreError> {
    let name = &survey.plan.backup.name;
    let (program, mut command) = setup.repository.command(&scratch.data())?;
    set_segment_size(&mut command, survey.catalog.wal.size);
    command
        .args(program.backup_fetch(&scratch.data(), name))
        .current_dir(scratch.path());
    if let Some((flag, tablespaces)) = program.in_place() {
        let path = scratch.path().join("tablespaces.json");
        fs::write(&path, tablespaces).map_err(|source| RestoreError::File {
            operation: "write",
            path: path.clone(),
            source,
        })?;
        command.arg(flag).arg(path);
    }
    if low_priority {
        process::low_priority(&mut command);
        if let Some(limit) = network_limit(&setup.settings) {
            command.env(NETWORK_LIMIT, limit);
        }
    }
    if !setup
        .repository
        .program
        .archive
        .settings
        .contains_key(RETRIES)
    {
        // wal-g's own 15, five minutes apart, would spend hours on one damaged part.
        command.env(RETRIES, "3");
    }
    let finished = process::run(command, limit).await?;
    if finished.status.success() {
        return Ok(());
    }
    let doing = "the backup was fetched";
    if is_full(scratch.path(), survey) {
        return Err(RestoreError::DiskFull { doing });
    }
    let members = &survey.plan.chain;
    let chain: Vec<_> = members
        .iter()
        .filter_map(|name| survey.catalog.backup(name))
        .collect();
    let fetch = |judgement| RestoreError::Fetch {
        program: program.to_string(),
        name: name.clone(),
        judgement,
        message: finished.last_words(),
    };
    let judged = catalog::check_parts(&survey.repository, &chain).await;
    let parts = judged.map_err(|error| RestoreError::StorageLost {
        doing,
        message: error.to_string(),
    })?;
    Err(match parts {
        Parts::Corrupt(reason) => RestoreError::Bad(reason),
        Parts::Encrypted => fetch(judge_key(scratch, survey).await?),
        Parts::Whole => fetch("every part of which can be unpacked"),
    })
}

/// With a wrong key no object can be decrypted; with the right one, only what is damaged cannot. So the program decrypts the
/// WAL segment that was stored together with the backup, too.
async fn judge_key(scratch: &Scratch, survey: &Survey) -> Result<&'static str, RestoreError> {
    const LIMIT: Duration = Duration::from_secs(60);
    const UNKNOWN: &str = "which is encrypted, and xdb cannot read it";
    let Some(segment) = Backup::segment_of(&survey.plan.backup.name) else {
        return Ok(UNKNOWN);
    };
    let path = scratch.path().join("decrypted-segment");
    let (_, mut command) = survey.repository.command(&scratch.data())?;
    set_segment_size(&mut command, survey.catalog.wal.size);
    command.arg("wal-fetch").arg(segment).arg(&path);
    let decrypted = process::run(command, LIMIT).await?.status.success();
    // It may never have been written.
    let _ = fs::remove_file(&path);
    if decrypted {
        return Ok("which is encrypted; the key is right, it decrypts WAL of that time");
    }
    let name = survey.repository.key(&format!("wal_005/{segment}"));
    let listed = survey.repository.bucket.list(&name).await;
    let listed = listed.map_err(|error| RestoreError::StorageLost {
        doing: "the backup was fetched",
        message: error.to_string(),
    })?;
    Ok(match listed.is_empty() {
        true => UNKNOWN,
        false => {
            "wrong key: what is configured in archive.settings decrypts neither the backup nor WAL of that time"
        }
    })
}

/// Not even one WAL segment finds room: whatever failed, failed for that.
pub(crate) fn is_full(scratch: &Path, survey: &Survey) -> bool {
    const LEAST: u64 = 16 << 20;
    let needed = survey.catalog.wal.size.bytes().max(LEAST);
    free_bytes(scratch).is_ok_and(|free| free < needed)
}
