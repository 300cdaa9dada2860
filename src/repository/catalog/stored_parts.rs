//! What the bucket holds of one backup, and whether that is what its sentinel counted. Pure, from the listing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Sentinel;
use crate::storage::Object;

/// Parts of a single file each.
const SMALL_PARTS: [&str; 2] = ["pg_control.tar", "backup_label.tar"];
/// Less than either of them takes in any compression: numbers and names that do not repeat.
const LEAST_PART: u64 = 128;

/// The objects below `basebackups_005/{name}/`, summed up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredParts {
    /// Tar parts, and their bytes as stored.
    pub count: u64,
    pub bytes: u64,
    /// The first tar part without content.
    empty: Option<String>,
    /// How many parts have a number (`part_001.tar.lz4`), and the highest one.
    numbered: u64,
    highest: u64,
    has_control: bool,
    has_label: bool,
    has_files_metadata: bool,
    /// It does not end as its JSON does.
    #[serde(default)]
    pub(super) files_metadata_cut: bool,
    /// The first part of the control file or the label that is too small to hold it, and its bytes.
    #[serde(default)]
    cut: Option<(String, u64)>,
    pub(super) has_metadata: bool,
    /// When the last object was stored.
    pub newest: Option<Timestamp>,
}

impl StoredParts {
    /// Counts `object`, whose key ends with `path` below the backup's folder.
    pub(super) fn add(&mut self, path: &str, object: &Object) {
        self.newest = self.newest.max(Some(object.last_modified));
        let Some(part) = path.strip_prefix("tar_partitions/") else {
            self.has_files_metadata |= path == "files_metadata.json" && object.size > 0;
            self.has_metadata |= path == "metadata.json";
            return;
        };
        if part.is_empty() {
            return;
        }
        self.count += 1;
        self.bytes += object.size;
        if object.size == 0 {
            self.empty.get_or_insert_with(|| part.to_owned());
        }
        self.has_control |= part.starts_with("pg_control.tar");
        self.has_label |= part.starts_with("backup_label.tar");
        if SMALL_PARTS.iter().any(|small| part.starts_with(small)) && object.size < LEAST_PART {
            self.cut
                .get_or_insert_with(|| (part.to_owned(), object.size));
        }
        let number = part
            .strip_prefix("part_")
            .and_then(|rest| rest.split('.').next());
        if let Some(number) = number.and_then(|digits| digits.parse().ok()) {
            self.numbered += 1;
            self.highest = self.highest.max(number);
        }
    }

    /// Why these objects are not the backup that `sentinel` describes.
    ///
    /// wal-g counts all, some or nothing of `backup_label.tar` in `CompressedSize`, so what is there may be more than was counted.
    pub(super) fn why_cut(&self, backup: &str, sentinel: &Sentinel) -> Option<String> {
        if self.count == 0 {
            return Some(format!("the tar parts of {backup} are missing"));
        }
        let counted = sentinel.compressed_size;
        if self.bytes < counted {
            return Some(format!(
                "the tar parts of {backup} hold {} bytes, and its sentinel counted {counted}",
                self.bytes
            ));
        }
        if let Some(part) = &self.empty {
            return Some(format!(
                "the tar parts of {backup} are cut: {part} is empty"
            ));
        }
        if let Some((part, bytes)) = &self.cut {
            return Some(format!(
                "the tar parts of {backup} are cut: {part} has {bytes} bytes"
            ));
        }
        // Both programs write the control file to a part of its own.
        let lacks = |is_there: bool, part: &str| {
            (!is_there).then(|| format!("the tar parts of {backup} lack {part}"))
        };
        lacks(self.has_control, "pg_control.tar").or_else(|| {
            lacks(
                self.has_label || !self.is_by_wal_g(sentinel),
                "backup_label.tar",
            )
        })
    }

    /// wal-g stores the label in a part of its own, walrus in the last numbered one. Only wal-g writes DataCatalogSize, which
    /// of a full backup is about as much as it packed; numbers that do not fit what is stored prove nothing.
    fn is_by_wal_g(&self, sentinel: &Sentinel) -> bool {
        let packed = sentinel.uncompressed_size;
        let about = packed / 2..=packed.saturating_mul(2);
        let is_plausible = (packed / 1000..=packed.saturating_mul(2)).contains(&self.bytes);
        is_plausible && sentinel.delta.is_none() && about.contains(&sentinel.data_size)
    }

    /// Why the backup cannot be counted on, though a program may still be able to restore it.
    pub(super) fn why_doubtful(&self, backup: &str, sentinel: &Sentinel) -> Option<String> {
        if sentinel.needs_files_metadata && self.files_metadata_cut {
            return Some(format!("files_metadata.json of {backup} is cut"));
        }
        if sentinel.needs_files_metadata && !self.has_files_metadata {
            return Some(format!(
                "files_metadata.json of {backup} is missing or empty"
            ));
        }
        // Releases that wrote no size say nothing of a missing part otherwise.
        if sentinel.compressed_size > 0 {
            return None;
        }
        let (there, highest) = (self.numbered, self.highest);
        if there < highest {
            return Some(format!(
                "of the {highest} numbered tar parts of {backup} only {there} are there"
            ));
        }
        // A delta of a server at rest may have nothing but the control file and the label.
        (there == 0 && sentinel.delta.is_none())
            .then(|| format!("of {backup} no numbered tar part is there"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALRUS: &[(&str, u64)] = &[
        ("tar_partitions/part_001.tar.lz4", 600),
        ("tar_partitions/part_002.tar.lz4", 200),
        ("tar_partitions/pg_control.tar.lz4", 200),
        ("files_metadata.json", 10),
        ("metadata.json", 10),
    ];

    fn stored(objects: &[(&str, u64)]) -> StoredParts {
        let mut stored = StoredParts::default();
        for (path, size) in objects {
            let object = Object {
                key: format!("basebackups_005/b/{path}"),
                size: *size,
                last_modified: Timestamp::UNIX_EPOCH,
                tag: String::new(),
            };
            stored.add(path, &object);
        }
        stored
    }

    fn sentinel(json: &str) -> Sentinel {
        let json = format!(r#"{{"LSN":40,"FinishLSN":80,"Version":2{json}}}"#);
        Sentinel::parse(json.as_bytes()).unwrap()
    }

    /// `WALRUS` with the object `name` of another size, or without it.
    fn changed(name: &str, size: Option<u64>) -> StoredParts {
        let objects = WALRUS.iter().filter_map(|(path, bytes)| {
            let size = if path.contains(name) { size? } else { *bytes };
            Some((*path, size))
        });
        stored(&objects.collect::<Vec<_>>())
    }

    #[test]
    fn a_part_that_is_cut_emptied_or_gone_is_found() {
        let counted = sentinel(r#","CompressedSize":1000"#);
        let uncounted = sentinel("");
        for (what, stored, sentinel, words) in [
            ("all is there", stored(WALRUS), &counted, None),
            ("no size was written", stored(WALRUS), &uncounted, None),
            (
                "a cut part",
                changed("part_001", Some(100)),
                &counted,
                Some("hold 500 bytes"),
            ),
            (
                "a part is gone",
                changed("part_002", None),
                &counted,
                Some("hold 800 bytes"),
            ),
            (
                "all parts are gone",
                stored(&WALRUS[3..]),
                &counted,
                Some("are missing"),
            ),
            (
                "the same without a size",
                stored(&WALRUS[3..]),
                &uncounted,
                Some("are missing"),
            ),
            (
                "an empty part without a size",
                changed("part_002", Some(0)),
                &uncounted,
                Some("part_002.tar.lz4 is empty"),
            ),
            (
                "no control file",
                changed("pg_control", None),
                &uncounted,
                Some("lack pg_control.tar"),
            ),
            (
                "a sentinel that counts more",
                stored(WALRUS),
                &sentinel(r#","CompressedSize":1001"#),
                Some("counted 1001"),
            ),
        ] {
            let found = stored.why_cut("b", sentinel);
            assert_eq!(found.is_some(), words.is_some(), "{what}: {found:?}");
            assert!(
                found
                    .unwrap_or_default()
                    .contains(words.unwrap_or_default()),
                "{what}"
            );
        }
    }

    #[test]
    fn wal_g_stores_the_label_in_a_part_that_it_does_not_count() {
        let wal_g =
            sentinel(r#","CompressedSize":1000,"UncompressedSize":4000,"DataCatalogSize":5000"#);
        let with_label = [WALRUS, &[("tar_partitions/backup_label.tar.lz4", 300)]].concat();
        assert_eq!(stored(&with_label).why_cut("b", &wal_g), None);
        // A cut that is smaller than the label, which was not counted.
        let control = with_label.iter().map(|(path, size)| {
            let is_control = path.contains("pg_control");
            (*path, if is_control { 100 } else { *size })
        });
        let found = stored(&control.collect::<Vec<_>>()).why_cut("b", &wal_g);
        assert!(
            found
                .unwrap_or_default()
                .contains("pg_control.tar.lz4 has 100 bytes")
        );
        let found = stored(WALRUS).why_cut("b", &wal_g).unwrap();
        assert!(found.contains("lack backup_label.tar"), "{found}");
    }

    #[test]
    fn a_list_of_files_that_is_gone_and_a_missing_number_are_doubts() {
        let sized = sentinel(r#","CompressedSize":1000"#);
        let disabled = sentinel(r#","CompressedSize":1000,"FilesMetadataDisabled":true"#);
        let old = Sentinel::parse(br#"{"LSN":40,"FinishLSN":80}"#).unwrap();
        for (what, stored, sentinel, is_doubtful) in [
            ("all is there", stored(WALRUS), &sized, false),
            ("no list", changed("files_metadata", None), &sized, true),
            (
                "an empty list",
                changed("files_metadata", Some(0)),
                &sized,
                true,
            ),
            (
                "taken without one",
                changed("files_metadata", None),
                &disabled,
                false,
            ),
            (
                "without a size, and without its one numbered part",
                stored(&WALRUS[2..]),
                &old,
                true,
            ),
            (
                "of a release before the list",
                changed("files_metadata", None),
                &old,
                false,
            ),
            (
                "no metadata.json",
                changed("/metadata", None),
                &sized,
                false,
            ),
            (
                "a missing number, no size",
                changed("part_001", None),
                &old,
                true,
            ),
            (
                "a missing number that was not counted",
                changed("part_001", None),
                &sized,
                false,
            ),
        ] {
            let found = stored.why_doubtful("b", sentinel);
            assert_eq!(found.is_some(), is_doubtful, "{what}: {found:?}");
        }
        let cut = StoredParts {
            files_metadata_cut: true,
            ..stored(WALRUS)
        };
        assert!(
            cut.why_doubtful("b", &sized)
                .is_some_and(|why| why.contains("is cut"))
        );
        assert_eq!(cut.why_doubtful("b", &disabled), None);
    }
}
