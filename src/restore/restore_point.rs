//! Whether the archive holds a restore point: text after `--until` that was not said to be a name may be a slip.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, stream};

use super::RestoreError;
use super::ahead::{on_the_way, suffix};
use super::preflight::Found;
use super::reach::not_in_the_wal;
use super::scratch::make_private;
use super::until::Until;
use crate::archive::{catalog, encrypts};
use crate::config::Config;

/// Segments that are read side by side.
const AT_ONCE: usize = 4;

/// Looks for the restore point `until` in the WAL that follows the backup.
///
/// What cannot be read here (encrypted, of a compression that xdb does not read) may hold it: only the replay can tell then.
///
/// # Errors
/// [`RestoreError::Unreachable`] where it is not there.
pub async fn judge_name(
    config: &Config,
    found: &Found,
    until: Option<&Until>,
) -> Result<(), RestoreError> {
    let Some(until @ Until::Name(name)) = until else {
        return Ok(());
    };
    let Some(suffix) = suffix(&config.archive.compression).filter(|_| !encrypts(config)) else {
        return Ok(());
    };
    let directory = std::env::temp_dir().join(format!("xdb-restore-point-{}", std::process::id()));
    make_private(&directory)?;
    let held = holds(found, name, suffix, &directory).await;
    // It is empty by now, and small where it is not.
    let _ = fs::remove_dir_all(&directory);
    match held {
        Some(false) => Err(not_in_the_wal(until, "")),
        _ => Ok(()),
    }
}

/// `None` where a segment cannot be read.
async fn holds(found: &Found, name: &str, suffix: &str, directory: &Path) -> Option<bool> {
    let wal = found.catalog.wal.size;
    let objects = on_the_way(found).into_iter().map(|segment| {
        let name = segment.name(wal);
        (found.repository.key(&format!("wal_005/{name}")), name)
    });
    let read = stream::iter(objects).map(|(key, segment)| {
        let path = directory.join(segment);
        async move {
            let unpacked =
                catalog::unpack_into(&found.bucket, &format!("{key}{suffix}"), path.clone()).await;
            let held = matches!(unpacked, Ok(Ok(_))).then(|| has(path.clone(), name));
            let held = match held {
                Some(held) => held.await,
                None => None,
            };
            let _ = fs::remove_file(&path);
            held
        }
    });
    let mut read = read.buffered(AT_ONCE);
    while let Some(held) = read.next().await {
        match held {
            Some(false) => {}
            other => return other,
        }
    }
    Some(false)
}

async fn has(path: PathBuf, name: &str) -> Option<bool> {
    let name = name.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let segment = fs::read(path).ok()?;
        Some(has_name(&segment, &name))
    });
    read.await.ok().flatten()
}

/// Whether `segment` holds the name as the record of a restore point has it. A name that the header of a page cuts is
/// taken for found.
fn has_name(segment: &[u8], name: &str) -> bool {
    // What follows the zero in the name's field is whatever was in the server's memory.
    let field = [name.as_bytes(), &[0]].concat();
    let cut = |at: usize| {
        // The header of a page has 24 bytes, at each 8192.
        (1..field.len()).any(|before| {
            let begin = at.checked_sub(before);
            begin.is_some_and(|begin| {
                segment.get(begin..at) == Some(&field[..before])
                    && segment.get(at + 24..at + 24 + field.len() - before)
                        == Some(&field[before..])
            })
        })
    };
    segment.windows(field.len()).any(|part| part == field)
        || (8192..segment.len()).step_by(8192).any(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_found_whole_and_across_two_pages() {
        let mut segment = vec![7_u8; 3 * 8192];
        assert!(!has_name(&segment, "before"));
        segment[100..106].copy_from_slice(b"before");
        assert!(!has_name(&segment, "before"), "no field of a record");
        segment[106] = 0;
        assert!(has_name(&segment, "before") && !has_name(&segment, "befor"));
        segment[8192 - 5..8192].copy_from_slice(b"after");
        segment[8192 + 24..8192 + 24 + 10].copy_from_slice(b"_the_page\0");
        assert!(has_name(&segment, "after_the_page"));
    }
}
