//! Whether the bucket holds all of a backup and of what it builds on.

use super::{Backup, Catalog, Sentinel, StoredParts};

impl Backup {
    /// Its `metadata.json`, where wal-g keeps a permanent mark, is gone; a restore does without.
    pub fn lost_its_marks(&self) -> bool {
        let written = self.sentinel.as_ref().is_some_and(|it| it.has_metadata);
        written && self.stored.as_ref().is_some_and(|it| !it.has_metadata)
    }
}

impl Catalog {
    /// Why the bucket holds less than the sentinels of `backup` and of all that it builds on counted.
    pub fn why_cut(&self, backup: &Backup) -> Option<String> {
        self.first_of_chain(backup, |stored, name, sentinel| {
            stored.why_cut(name, sentinel)
        })
    }

    /// Why `backup` cannot be counted on, though a program may still be able to restore it.
    pub(super) fn why_doubtful(&self, backup: &Backup) -> Option<String> {
        self.first_of_chain(backup, |stored, name, sentinel| {
            stored.why_doubtful(name, sentinel)
        })
    }

    fn first_of_chain(
        &self,
        backup: &Backup,
        judge: impl Fn(&StoredParts, &str, &Sentinel) -> Option<String>,
    ) -> Option<String> {
        let chain = self.chain(backup).unwrap_or_default();
        chain.into_iter().find_map(|member| {
            let (stored, sentinel) = (member.stored.as_ref()?, member.sentinel.as_ref()?);
            judge(stored, &member.name, sentinel)
        })
    }
}
