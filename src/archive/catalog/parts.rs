//! Whether the bucket holds what the sentinels of a chain counted: a sentinel alone proves nothing.

use super::{Backup, Catalog, Sentinel, tar_parts};
use crate::model::Verdict;
use crate::storage::{Bucket, Repository, StorageError};

/// Judges the tar parts of each backup in `chain` by a listing; the first that is not whole decides.
///
/// # Errors
/// When the bucket cannot be listed.
pub async fn judge_chain(
    bucket: &Bucket,
    repository: &Repository,
    chain: &[&Backup],
) -> Result<Verdict, StorageError> {
    for backup in chain {
        let Some(sentinel) = &backup.sentinel else {
            continue;
        };
        let parts = tar_parts(bucket, repository, &backup.name).await?;
        let stored = parts.iter().map(|part| part.size).sum();
        let judged = judge_tar_parts(&backup.name, sentinel, stored);
        if judged != Verdict::Ok {
            return Ok(judged);
        }
    }
    Ok(Verdict::Ok)
}

/// What the stored tar parts of one backup tell: fewer bytes than its sentinel counted means that something was cut.
fn judge_tar_parts(backup: &str, sentinel: &Sentinel, stored: u64) -> Verdict {
    if stored < sentinel.compressed_size {
        return Verdict::Critical(format!(
            "the tar parts of {backup} hold {stored} bytes, and its sentinel counted {}",
            sentinel.compressed_size
        ));
    }
    Verdict::Ok
}

impl Catalog {
    /// Why `backup` leads nowhere that counts: the newest timeline left its history before it was finished.
    ///
    /// It can be restored, to what a primary that another node's promotion superseded wrote by itself.
    pub fn why_left(&self, backup: &Backup) -> Option<String> {
        let finish = backup.sentinel.as_ref()?.finish_lsn;
        let (newest, history) = self.wal.histories.last_key_value()?;
        if *newest <= backup.timeline {
            return None;
        }
        // Of a history that cannot be read others speak.
        match history.as_ref().ok()?.switched_from(backup.timeline) {
            Some(switch) if finish <= switch => None,
            Some(switch) => Some(format!(
                "it finished at {finish}, and timeline {newest} had left timeline {} at {switch}",
                backup.timeline
            )),
            None => Some(format!(
                "timeline {newest} does not lead through its timeline {}",
                backup.timeline
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::catalog::Wal;
    use crate::model::Timeline;

    fn sentinel(finish: u64, compressed: u64) -> Sentinel {
        let json = format!(r#"{{"LSN":40,"FinishLSN":{finish},"CompressedSize":{compressed}}}"#);
        Sentinel::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn fewer_bytes_than_were_counted_are_a_cut() {
        assert_eq!(judge_tar_parts("b", &sentinel(80, 100), 101), Verdict::Ok);
        assert_ne!(judge_tar_parts("b", &sentinel(80, 100), 99), Verdict::Ok);
    }

    #[test]
    fn a_backup_that_finished_after_a_promotion_leads_nowhere_that_counts() {
        for (timeline, finish, histories, left) in [
            (1, 0x0300_0000, vec![], false),
            (1, 0x0300_0000, vec![(2, "1\t0/3000000\tr\n")], false),
            (1, 0x0300_0001, vec![(2, "1\t0/3000000\tr\n")], true),
            // Of two forks of timeline 1 the newer counts.
            (
                1,
                0x0400_0000,
                vec![(2, "1\t0/3000000\tr\n"), (3, "1\t0/5000000\tr\n")],
                false,
            ),
            (
                2,
                0x0400_0000,
                vec![(2, "1\t0/3000000\tr\n"), (3, "1\t0/5000000\tr\n")],
                true,
            ),
            (2, 0x0400_0000, vec![(2, "1\t0/3000000\tr\n")], false),
            // What cannot be read proves nothing.
            (1, 0x0400_0000, vec![(2, "nonsense")], false),
        ] {
            let backup = Backup {
                name: "base_1".to_owned(),
                timeline: Timeline(timeline),
                sentinel: Some(sentinel(finish, 1)),
                damage: None,
                finished_at: None,
            };
            let parsed = histories.iter().map(|(id, text): &(u32, &str)| {
                (Timeline(*id), text.parse().map_err(|_| "bad".to_owned()))
            });
            let wal = Wal {
                histories: parsed.collect(),
                ..Wal::default()
            };
            let catalog = Catalog {
                backups: Vec::new(),
                wal,
            };
            assert_eq!(
                catalog.why_left(&backup).is_some(),
                left,
                "{timeline} {finish:X} {histories:?}"
            );
        }
    }
}
