//! Backups that a promotion left behind. Pure.

use super::{Backup, Catalog};

impl Catalog {
    /// Why `backup` leads nowhere that counts: the newest timeline left its history before it was finished.
    ///
    /// It can be restored, but only to the WAL of a primary that another node's promotion had superseded.
    pub fn why_superseded(&self, backup: &Backup) -> Option<String> {
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
    use crate::model::Timeline;
    use crate::repository::catalog::{Sentinel, Wal};

    fn sentinel(finish: u64) -> Sentinel {
        let json = format!(r#"{{"LSN":40,"FinishLSN":{finish}}}"#);
        Sentinel::parse(json.as_bytes()).unwrap()
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
                sentinel: Some(sentinel(finish)),
                ..Backup::sample(timeline, 0, "")
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
                catalog.why_superseded(&backup).is_some(),
                left,
                "{timeline} {finish:X} {histories:?}"
            );
        }
    }
}
