//! A dump set: its name, its keys, and the manifest that says what is in it.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::encryption::Encryption;
use super::{Contents, LeftOut};
use crate::storage::{Content, Location};

/// What stands for itself in a key; all else is percent-encoded.
const ODD: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
const TIME: &str = "%Y%m%dT%H%M%S%.3f";

/// When the set was begun, to the millisecond, and by which node: sorts by time, and no two nodes make the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SetName(String);

impl SetName {
    pub(crate) fn new(begun_at: Timestamp, hostname: &str) -> Self {
        let time = begun_at.strftime(TIME);
        Self(format!("{time}Z-{}", utf8_percent_encode(hostname, ODD)))
    }

    /// `None` for what is no set's name, or only the beginning of one's time.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let name = Self(text.to_owned());
        let (time, node) = text.split_once("Z-")?;
        let whole = time.len() == "20260513T101429.123".len() && !node.is_empty();
        (whole && !node.contains('/') && name.time().is_some()).then_some(name)
    }

    /// The set that the object `key` of `repository` belongs to; `None` for a key of no set's folder.
    pub(super) fn of_key(key: &str, repository: &Location) -> Option<Self> {
        let (folder, _) = key.strip_prefix(&repository.key(""))?.split_once('/')?;
        Self::parse(folder)
    }

    /// The node that made it, as the name spells its host name.
    pub(super) fn node(&self) -> &str {
        let (_, node) = self.0.split_once("Z-").expect("a set's name has a node");
        node
    }

    pub(crate) fn begun_at(&self) -> Timestamp {
        self.time().expect("a set's name begins with its time")
    }

    fn time(&self) -> Option<Timestamp> {
        let time = DateTime::strptime(TIME, self.0.split('Z').next()?).ok()?;
        Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
    }

    /// The prefix of all its keys, with the slash.
    pub(super) fn folder(&self, repository: &Location) -> String {
        repository.key(&format!("{self}/"))
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const GLOBALS: &str = "globals.sql";

/// The file of `database` in its set's folder.
pub(super) fn dump_file(database: &str) -> String {
    format!("{}.dump", utf8_percent_encode(database, ODD))
}

/// `manifest.json`, written when all else of the set is in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DumpSet {
    /// Of this layout: [`DumpSet::version`].
    pub v: u32,
    pub set: String,
    pub cluster: String,
    /// The node that dumped, and whether it was a standby.
    pub node: String,
    pub in_recovery: bool,
    pub system_identifier: u64,
    /// `server_version_num`, such as 170011.
    pub server_version: u32,
    /// `server_version`, with what the packager added. `None` where an older xdb wrote the set, as below.
    pub server_version_text: Option<String>,
    /// As `pg_dump --version` prints it.
    pub pg_dump_version: Option<String>,
    /// The role that initdb made: the globals grant memberships in its name. `None` where a first xdb wrote the set.
    pub superuser: Option<String>,
    pub started_at: Timestamp,
    pub finished_at: Timestamp,
    pub databases: Vec<DumpedDatabase>,
    /// Roles and tablespaces, of `pg_dumpall --globals-only`; no snapshot holds them.
    pub globals: StoredObject,
    /// A choice of the databases that could be dumped (`--database`). `None` where an older xdb wrote the set.
    pub partial: Option<bool>,
    /// What of the server, and of these databases, the set does not hold.
    #[serde(default)]
    pub left_out: Vec<LeftOut>,
}

impl DumpSet {
    /// The newest layout that this xdb reads.
    pub(crate) const VERSION: u32 = 3;

    /// The layout of a set of `databases` and `globals`.
    ///
    /// An xdb that knows version 1 only would miss the tables that were not counted, and not expect the unlogged tables of
    /// a primary in the set of a standby. One that knows no version 3 would take an encrypted object for a damaged one.
    pub(super) fn version(databases: &[DumpedDatabase], globals: &StoredObject) -> u32 {
        let contents = || databases.iter().map(|database| &database.contents);
        let is_new = contents().any(|it| !it.estimated_rows.is_empty() || it.dumped_from.is_some());
        match globals.encryption {
            Some(_) => Self::VERSION,
            None if is_new => 2,
            None => 1,
        }
    }

    /// Whose identities decrypt it; `None` where it is not encrypted.
    pub(crate) fn age_recipients(&self) -> Option<&[String]> {
        let encryption = self.globals.encryption.as_ref()?;
        Some(&encryption.age_recipients)
    }

    /// What the set takes in the bucket, but for the manifest.
    pub(crate) fn bytes(&self) -> u64 {
        self.objects().map(|object| object.bytes).sum()
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &StoredObject> {
        let dumps = self.databases.iter().map(|database| &database.dump);
        dumps.chain([&self.globals])
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DumpedDatabase {
    pub name: String,
    #[serde(flatten)]
    pub dump: StoredObject,
    /// When the snapshot was taken: the dump holds what was committed then.
    pub snapshot_at: Timestamp,
    pub finished_at: Timestamp,
    /// What it took on the server's disk, indexes included. `None` where a first xdb wrote the set.
    pub database_bytes: Option<u64>,
    /// Rows a table in the dump's own snapshot, by `schema.table`, quoted where SQL wants it: counted, never estimated.
    pub rows: BTreeMap<String, u64>,
    #[serde(flatten)]
    pub contents: Contents,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredObject {
    /// In the bucket.
    pub key: String,
    pub bytes: u64,
    /// Of the object's bytes, in hexadecimal digits.
    pub sha256: String,
    /// `None` where the object is what was dumped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
}

impl StoredObject {
    pub(super) fn new(key: String, content: Content, encryption: Option<Encryption>) -> Self {
        Self {
            key,
            bytes: content.bytes,
            sha256: content.sha256,
            encryption,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::{CollationVersion, LargeObjects, Sequence};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_sets_name_is_its_time_and_its_node() {
        let begun_at = at("2026-05-13T10:14:29.1239Z");
        let name = SetName::new(begun_at, "db2");
        assert_eq!(name.to_string(), "20260513T101429.123Z-db2");
        assert_eq!(SetName::parse(&name.to_string()), Some(name.clone()));
        assert_eq!(name.begun_at(), at("2026-05-13T10:14:29.123Z"));
        assert!(name < SetName::new(at("2026-05-13T10:14:29.2Z"), "db1"));
        let odd = SetName::new(begun_at, "a/b c");
        assert_eq!(odd.to_string(), "20260513T101429.123Z-a%2Fb%20c");
        assert!(SetName::parse(&odd.to_string()).is_some());
    }

    #[test]
    fn what_is_no_sets_name_is_told() {
        for text in [
            "",
            "main",
            "20260513T101429.123Z-",
            "20260513T101429.123Z",
            "20260513T101429Z-db2",
            "20261313T101429.123Z-db2",
            "20260513T101429.123Z-db2/x",
            "base_000000010000000000000002",
        ] {
            assert_eq!(SetName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn an_odd_database_name_stays_one_file() {
        for (name, file) in [
            ("app", "app.dump"),
            ("a-b_c.d", "a-b_c.d.dump"),
            ("../up", "..%2Fup.dump"),
            ("it's \"odd\"", "it%27s%20%22odd%22.dump"),
            ("é%", "%C3%A9%25.dump"),
        ] {
            assert_eq!(dump_file(name), file);
        }
    }

    #[test]
    fn the_manifest_reads_what_it_writes() {
        let object = |key: &str| StoredObject {
            key: key.to_owned(),
            bytes: 5,
            sha256: "ab".to_owned(),
            encryption: None,
        };
        let set = DumpSet {
            v: 1,
            set: "s".to_owned(),
            cluster: "main".to_owned(),
            node: "db2".to_owned(),
            in_recovery: true,
            system_identifier: u64::MAX,
            server_version: 170_011,
            server_version_text: Some("17.11 (Debian)".to_owned()),
            pg_dump_version: Some("pg_dump (PostgreSQL) 17.11".to_owned()),
            superuser: Some("postgres".to_owned()),
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            databases: vec![DumpedDatabase {
                name: "app".to_owned(),
                dump: object("p/s/app.dump"),
                snapshot_at: Timestamp::UNIX_EPOCH,
                finished_at: Timestamp::UNIX_EPOCH,
                database_bytes: Some(7),
                rows: BTreeMap::from([("public.t".to_owned(), 3)]),
                contents: contents(),
            }],
            globals: object("p/s/globals.sql"),
            partial: Some(false),
            left_out: vec![LeftOut {
                database: Some("old".to_owned()),
                what: "it allows no connections".to_owned(),
            }],
        };
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<DumpSet>(&json).unwrap(), set);
        assert_eq!(set.bytes(), 10);
        assert!(!json.contains("encryption"), "{json}");

        // As an older xdb wrote it.
        let mut older = serde_json::to_value(&set).unwrap();
        let new_fields = [
            "partial",
            "left_out",
            "server_version_text",
            "pg_dump_version",
        ];
        for field in new_fields {
            older.as_object_mut().unwrap().remove(field);
        }
        let database = older["databases"][0].as_object_mut().unwrap();
        let known = [
            "name",
            "key",
            "bytes",
            "sha256",
            "snapshot_at",
            "finished_at",
            "database_bytes",
            "rows",
        ];
        database.retain(|field, _| known.contains(&field.as_str()));
        let older: DumpSet = serde_json::from_value(older).unwrap();
        assert_eq!((older.partial, older.left_out.len()), (None, 0));
        assert_eq!(older.databases[0].contents, Contents::default());
    }

    fn contents() -> Contents {
        Contents {
            lsn: Some("0/3000028".parse().unwrap()),
            dumped_from: None,
            estimated_rows: BTreeMap::from([("public.large".to_owned(), None)]),
            extensions: Some(BTreeMap::from([("amcheck".to_owned(), "1.4".to_owned())])),
            collations: Some(BTreeMap::from([(
                "pg_catalog.\"default\"".to_owned(),
                CollationVersion {
                    recorded: None,
                    actual: Some("2.41".to_owned()),
                },
            )])),
            sequences: Some(BTreeMap::from([(
                "public.s".to_owned(),
                Sequence {
                    value: i64::MIN,
                    is_called: true,
                    value_at_end: Some(i64::MAX),
                },
            )])),
            large_objects: Some(LargeObjects {
                number: 1,
                bytes: None,
            }),
        }
    }

    #[test]
    fn a_set_that_an_older_xdb_would_misread_is_of_a_newer_version() {
        let plain = StoredObject {
            key: "k".to_owned(),
            bytes: 0,
            sha256: String::new(),
            encryption: None,
        };
        let database = |contents| DumpedDatabase {
            name: "app".to_owned(),
            dump: plain.clone(),
            snapshot_at: Timestamp::UNIX_EPOCH,
            finished_at: Timestamp::UNIX_EPOCH,
            database_bytes: None,
            rows: BTreeMap::new(),
            contents,
        };
        let exact = Contents {
            estimated_rows: BTreeMap::new(),
            ..contents()
        };
        let primary = Contents {
            dumped_from: Some("db1:5432".to_owned()),
            ..exact.clone()
        };
        for (contents, version) in [
            (Contents::default(), 1),
            (exact, 1),
            (contents(), 2),
            (primary, 2),
        ] {
            assert_eq!(DumpSet::version(&[database(contents)], &plain), version);
        }
        let encryption = r#"{"key": "k", "bytes": 0, "sha256": "", "encryption":
            {"age_recipients": ["age1abc"], "plain_bytes": 5}}"#;
        let encrypted: StoredObject = serde_json::from_str(encryption).unwrap();
        assert_eq!(DumpSet::version(&[], &encrypted), 3);
    }
}
