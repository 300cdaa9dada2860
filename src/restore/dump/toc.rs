//! The table of contents of a dump in PostgreSQL's custom format (`pg_backup_archiver.c`, `ReadHead` and `ReadToc`). Pure.
//!
//! It comes first in the file, so that it can be read before the data: owners, statements and dependencies of each object.

/// Where the parsing stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TocError {
    /// More bytes are needed.
    Incomplete,
    /// These bytes are no dump, or they are damaged.
    NotADump,
    /// An archive of a format that this xdb does not know: major, minor.
    Version(u8, u8),
}

/// The head of a dump.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Toc {
    /// `server_version` of the server that was dumped.
    pub server: String,
    /// In the order of the file.
    pub entries: Vec<Entry>,
}

/// One object of the dump. Texts that the file has not are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// The number that `pg_restore --use-list` reads.
    pub id: i64,
    /// The name, mostly without its schema.
    pub tag: String,
    /// The kind: `TABLE`, `TABLE DATA`, `INDEX`, …
    pub kind: String,
    pub section: Section,
    /// The statements that make it.
    pub definition: String,
    pub schema: String,
    pub tablespace: String,
    pub owner: String,
    /// Numbers of the entries that it needs; some are in no dump.
    pub needs: Vec<i64>,
}

/// `teSection`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Section {
    #[default]
    None,
    PreData,
    Data,
    PostData,
}

/// Those of PostgreSQL 12 to 18.
const OLDEST: (u8, u8) = (1, 14);
const NEWEST: (u8, u8) = (1, 16);
const CUSTOM: u8 = 1;
/// More entries, or longer texts, than a server has room for are damage.
const MOST: i64 = 1 << 30;

/// Parses the beginning of a dump.
///
/// # Errors
/// [`TocError::Incomplete`] where `head` ends within the table of contents.
pub(super) fn parse_toc(head: &[u8]) -> Result<Toc, TocError> {
    let mut reader = Reader {
        rest: head,
        integer: 0,
        offset: 0,
    };
    let version = reader.head()?;
    let server = reader.text()?;
    // Of pg_dump.
    reader.text()?;
    let count = reader.integer()?;
    if !(0..=MOST).contains(&count) {
        return Err(TocError::NotADump);
    }
    let entries = (0..count).map(|_| reader.entry(version));
    Ok(Toc {
        server,
        entries: entries.collect::<Result<_, _>>()?,
    })
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Bytes of an integer without its sign, and of a file offset without its flag.
    integer: u8,
    offset: u8,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, TocError> {
        let (byte, rest) = self.rest.split_first().ok_or(TocError::Incomplete)?;
        self.rest = rest;
        Ok(*byte)
    }

    fn bytes(&mut self, number: usize) -> Result<&[u8], TocError> {
        let (bytes, rest) = self
            .rest
            .split_at_checked(number)
            .ok_or(TocError::Incomplete)?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Reads up to the text of the server's version, and returns the format's.
    fn head(&mut self) -> Result<(u8, u8), TocError> {
        const MAGIC: &[u8] = b"PGDMP";
        let there = &self.rest[..self.rest.len().min(MAGIC.len())];
        if !MAGIC.starts_with(there) {
            return Err(TocError::NotADump);
        }
        self.bytes(MAGIC.len())?;
        let version = (self.byte()?, self.byte()?);
        // The revision.
        self.byte()?;
        if !(OLDEST..=NEWEST).contains(&version) {
            return Err(TocError::Version(version.0, version.1));
        }
        self.integer = self.byte()?;
        self.offset = self.byte()?;
        if !(4..=8).contains(&self.integer) || self.offset > 16 || self.byte()? != CUSTOM {
            return Err(TocError::NotADump);
        }
        // The compression: an algorithm, or a level.
        if version >= (1, 15) {
            self.byte()?;
        } else {
            self.integer()?;
        }
        // The time in seven parts, and the name of the database.
        for _ in 0..7 {
            self.integer()?;
        }
        self.text()?;
        Ok(version)
    }

    /// A sign, then the absolute value, its lowest byte first.
    fn integer(&mut self) -> Result<i64, TocError> {
        let negative = self.byte()? != 0;
        let mut value = 0_u64;
        let bytes = self.bytes(usize::from(self.integer))?;
        for (at, byte) in bytes.iter().enumerate() {
            value |= u64::from(*byte) << (8 * at);
        }
        let value = i64::try_from(value).map_err(|_| TocError::NotADump)?;
        Ok(if negative { -value } else { value })
    }

    /// `None` where the file has no text, which is not an empty one.
    fn some_text(&mut self) -> Result<Option<String>, TocError> {
        let length = self.integer()?;
        if length > MOST {
            return Err(TocError::NotADump);
        }
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        let bytes = self.bytes(length)?;
        // In the encoding of the database: names of another one are compared with those of the same reading only.
        Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
    }

    fn text(&mut self) -> Result<String, TocError> {
        Ok(self.some_text()?.unwrap_or_default())
    }

    fn entry(&mut self, version: (u8, u8)) -> Result<Entry, TocError> {
        let id = self.integer()?;
        // Whether it has data, and the OIDs of its catalog and of the object.
        self.integer()?;
        self.text()?;
        self.text()?;
        let (tag, kind) = (self.text()?, self.text()?);
        let section = match self.integer()? {
            2 => Section::PreData,
            3 => Section::Data,
            4 => Section::PostData,
            _ => Section::None,
        };
        let definition = self.text()?;
        // DROP and COPY.
        self.text()?;
        self.text()?;
        let (schema, tablespace) = (self.text()?, self.text()?);
        // The table access method, and the kind of the relation.
        self.text()?;
        if version >= (1, 16) {
            self.integer()?;
        }
        let owner = self.text()?;
        // Whether it has OIDs.
        self.text()?;
        let mut needs = Vec::new();
        while let Some(number) = self.some_text()? {
            needs.push(number.parse().map_err(|_| TocError::NotADump)?);
        }
        // Where its data is, which a dump into a pipe does not tell.
        self.bytes(1 + usize::from(self.offset))?;
        Ok(Entry {
            id,
            tag,
            kind,
            section,
            definition,
            schema,
            tablespace,
            owner,
            needs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes as `pg_dump` does.
    #[derive(Default)]
    struct Writer(Vec<u8>);

    impl Writer {
        fn integer(&mut self, value: i32) -> &mut Self {
            self.0.push(u8::from(value < 0));
            self.0.extend(value.unsigned_abs().to_le_bytes());
            self
        }

        fn text(&mut self, text: &str) -> &mut Self {
            self.integer(i32::try_from(text.len()).unwrap());
            self.0.extend(text.as_bytes());
            self
        }

        fn none(&mut self) -> &mut Self {
            self.integer(-1)
        }
    }

    fn dump(minor: u8) -> Vec<u8> {
        let mut file = Writer(b"PGDMP\x01".to_vec());
        file.0.extend([minor, 0, 4, 8, CUSTOM]);
        match minor {
            14 => drop(file.integer(-1)),
            _ => file.0.push(1),
        }
        for part in [0, 0, 12, 27, 10, 126, 0] {
            file.integer(part);
        }
        file.text("shop").text("17.5").text("17.5").integer(2);
        for (id, kind, needs) in [(7, "TABLE", &["3", "4"][..]), (8, "TABLE DATA", &["7"])] {
            file.integer(id).integer(1).text("1259").text("16385");
            file.text("it's \"é\"").text(kind);
            file.integer(if kind == "TABLE" { 2 } else { 3 });
            file.text("CREATE")
                .text("DROP")
                .none()
                .text("public")
                .none()
                .text("heap");
            if minor >= 16 {
                file.integer(114);
            }
            file.text("app").text("false");
            for need in needs {
                file.text(need);
            }
            file.none().0.extend([1; 9]);
        }
        file.0.extend(b"what follows is data");
        file.0
    }

    #[test]
    fn each_format_is_read_and_one_that_is_cut_is_incomplete() {
        for minor in 14..=16 {
            let file = dump(minor);
            let toc = parse_toc(&file).unwrap();
            assert_eq!((toc.server.as_str(), toc.entries.len()), ("17.5", 2));
            assert_eq!(
                toc.entries[0],
                Entry {
                    id: 7,
                    tag: "it's \"é\"".to_owned(),
                    kind: "TABLE".to_owned(),
                    section: Section::PreData,
                    definition: "CREATE".to_owned(),
                    schema: "public".to_owned(),
                    tablespace: String::new(),
                    owner: "app".to_owned(),
                    needs: vec![3, 4],
                }
            );
            let whole = file.len() - b"what follows is data".len();
            for length in 0..whole {
                let cut = parse_toc(&file[..length]);
                assert_eq!(cut, Err(TocError::Incomplete), "{minor}: {length}");
            }
        }
    }

    #[test]
    fn what_is_no_dump_or_an_unknown_one_is_told_apart() {
        let mut newer = dump(16);
        newer[6] = 17;
        assert_eq!(parse_toc(&newer), Err(TocError::Version(1, 17)));
        assert_eq!(parse_toc(b"SELECT 1;"), Err(TocError::NotADump));
        let mut damaged = dump(16);
        damaged[7] = 200;
        assert_eq!(parse_toc(&damaged[..9]), Err(TocError::Incomplete));
        damaged[8] = 99;
        assert_eq!(parse_toc(&damaged), Err(TocError::NotADump));
    }
}
