//! The entries of a dump that bring back a part of it: some tables, or one schema, with all that these need. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::sql::parse_table;
use super::toc::{Entry, Section, Toc};

/// The part of a database to restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Database,
    /// Names as SQL, or as they are.
    Tables(Vec<String>),
    Schema(String),
}

/// What is restored of a dump.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// The entries for `pg_restore --use-list`, in the order of the dump. `None` where all are restored.
    pub ids: Option<Vec<i64>>,
    /// The tables whose rows are restored, by schema and name. `None` for all: in another encoding than UTF-8 their names
    /// may be misread here.
    pub tables: Option<BTreeSet<(String, String)>>,
    /// What belongs to the part and is not restored, each with its reason.
    pub left_out: Vec<String>,
}

/// Why no part can be selected: it is not there, or not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub(super) struct NoSuchPart {
    pub reason: String,
    pub hint: String,
}

/// Kinds that belong to a table: restored with it when they need nothing else that is missing.
const OF_TABLE: &[&str] = &[
    "CHECK CONSTRAINT",
    "CONSTRAINT",
    "DEFAULT",
    "FK CONSTRAINT",
    "INDEX",
    "INDEX ATTACH",
    "POLICY",
    "ROW SECURITY",
    "RULE",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "STATISTICS",
    "TABLE ATTACH",
    "TABLE DATA",
    "TRIGGER",
];
/// Kinds that describe another entry.
const ABOUT_ANOTHER: &[&str] = &["ACL", "COMMENT", "SECURITY LABEL"];
const RELATIONS: &[&str] = &["FOREIGN TABLE", "MATERIALIZED VIEW", "TABLE", "VIEW"];
/// Kinds that belong to a whole database.
const OF_DATABASE: &[&str] = &[
    "EVENT TRIGGER",
    "PUBLICATION",
    "PUBLICATION TABLE",
    "PUBLICATION TABLES IN SCHEMA",
    "SUBSCRIPTION",
    "SUBSCRIPTION TABLE",
];

/// Selects `part` of `toc`; `with_rows` is whether rows are restored, too.
///
/// # Errors
/// When there is no such table or schema, or a name fits several tables.
pub(super) fn select(toc: &Toc, part: &Part, with_rows: bool) -> Result<Selection, NoSuchPart> {
    let mut selecting = Selecting::new(toc);
    match part {
        Part::Database => return Ok(whole(toc, with_rows)),
        Part::Tables(names) => {
            for name in names {
                selecting.owned.insert(find_table(toc, name)?);
            }
            selecting.add_partitions();
        }
        Part::Schema(schema) => selecting.own_schema(schema)?,
    }
    selecting.add_owned();
    selecting.add_attached();
    let mut selection = selecting.conclude();
    if !with_rows {
        selection.ids = selection.ids.map(|ids| without_rows(toc, &ids));
    }
    Ok(selection)
}

fn whole(toc: &Toc, with_rows: bool) -> Selection {
    let all: Vec<i64> = toc.entries.iter().map(|entry| entry.id).collect();
    Selection {
        ids: (!with_rows).then(|| without_rows(toc, &all)),
        tables: None,
        left_out: Vec::new(),
    }
}

/// Those of `ids` that hold no rows, values of sequences or large objects.
fn without_rows(toc: &Toc, ids: &[i64]) -> Vec<i64> {
    let wanted: HashSet<i64> = ids.iter().copied().collect();
    let entries = toc.entries.iter().filter(|entry| {
        wanted.contains(&entry.id)
            && entry.section != Section::Data
            && entry.kind != "MATERIALIZED VIEW DATA"
            && !entry.kind.starts_with("BLOB")
            && !entry.tag.starts_with("LARGE OBJECT")
    });
    entries.map(|entry| entry.id).collect()
}

fn name_of(entry: &Entry) -> (String, String) {
    (entry.schema.clone(), entry.tag.clone())
}

fn shown(entry: &Entry) -> String {
    format!("{}.{}", entry.schema, entry.tag)
}

/// The place of the table `name` in the dump. A name that is written exactly so comes before one that SQL folds to it.
fn find_table(toc: &Toc, name: &str) -> Result<usize, NoSuchPart> {
    let parsed = parse_table(name);
    let is_exact = |entry: &Entry| entry.tag == name || shown(entry) == name;
    let is_in_sql = |entry: &Entry| {
        parsed.as_ref().is_some_and(|(schema, table)| {
            entry.tag == *table && schema.as_ref().is_none_or(|schema| entry.schema == *schema)
        })
    };
    let relations = || {
        let all = toc.entries.iter().enumerate();
        all.filter(|(_, entry)| {
            RELATIONS.contains(&entry.kind.as_str()) || entry.kind == "SEQUENCE"
        })
    };
    let mut found: Vec<_> = relations().filter(|(_, entry)| is_exact(entry)).collect();
    if found.is_empty() {
        found = relations().filter(|(_, entry)| is_in_sql(entry)).collect();
    }
    match found.as_slice() {
        [(at, entry)] if entry.kind == "TABLE" => Ok(*at),
        [(_, entry)] => Err(NoSuchPart {
            reason: format!("{name} is no table but a {}", entry.kind.to_lowercase()),
            hint: "restore the schema (--schema), or the whole database".to_owned(),
        }),
        [] => Err(NoSuchPart {
            reason: format!("the dump holds no table {name}"),
            hint: near(
                name,
                relations()
                    .filter(|(_, it)| it.kind == "TABLE")
                    .map(|(_, it)| shown(it)),
            ),
        }),
        several => {
            let names: Vec<String> = several.iter().map(|(_, entry)| shown(entry)).collect();
            Err(NoSuchPart {
                reason: format!("{name} fits {} tables", names.len()),
                hint: format!("name its schema, too: {}", names.join(", ")),
            })
        }
    }
}

/// The names that are most like `name`.
fn near(name: &str, names: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 5;
    let wanted = name.to_lowercase();
    let likeness = |candidate: &str| {
        let bare = candidate.rsplit('.').next().unwrap_or(candidate);
        let (bare, whole) = (bare.to_lowercase(), candidate.to_lowercase());
        strsim::jaro_winkler(&wanted, &bare).max(strsim::jaro_winkler(&wanted, &whole))
    };
    let mut ranked: Vec<(f64, String)> = names.map(|it| (likeness(&it), it)).collect();
    ranked.sort_by(|one, other| other.0.total_cmp(&one.0).then_with(|| one.1.cmp(&other.1)));
    let shown: Vec<String> = ranked
        .into_iter()
        .take(SHOWN)
        .map(|(_, name)| name)
        .collect();
    match shown.as_slice() {
        [] => "it holds none at all: see `xdb dump show`".to_owned(),
        names => format!("the names that are most like it: {}", names.join(", ")),
    }
}

struct Selecting<'a> {
    toc: &'a Toc,
    by_id: HashMap<i64, usize>,
    /// The tables that are wanted; of a schema, its views, too.
    owned: BTreeSet<usize>,
    included: BTreeSet<usize>,
    left_out: BTreeSet<String>,
}

impl<'a> Selecting<'a> {
    fn new(toc: &'a Toc) -> Self {
        let numbered = toc.entries.iter().enumerate();
        Self {
            toc,
            by_id: numbered.map(|(at, entry)| (entry.id, at)).collect(),
            owned: BTreeSet::new(),
            included: BTreeSet::new(),
            left_out: BTreeSet::new(),
        }
    }

    fn entry(&self, at: usize) -> &'a Entry {
        &self.toc.entries[at]
    }

    /// The entries that the one at `at` needs; those that are in no dump are left out.
    fn needs(&self, at: usize) -> impl Iterator<Item = usize> {
        let needs = self.entry(at).needs.iter();
        needs.filter_map(|id| self.by_id.get(id).copied())
    }

    fn all_of(&self, kinds: &[&str]) -> Vec<usize> {
        let all = self.toc.entries.iter().enumerate();
        let of_kind = all.filter(|(_, entry)| kinds.contains(&entry.kind.as_str()));
        of_kind.map(|(at, _)| at).collect()
    }

    /// The partitions of those that are owned, and theirs.
    fn add_partitions(&mut self) {
        let attached = self.all_of(&["TABLE ATTACH"]);
        loop {
            let before = self.owned.len();
            for at in &attached {
                let child = name_of(self.entry(*at));
                let (children, parents): (Vec<usize>, Vec<usize>) = self
                    .needs(*at)
                    .filter(|need| self.entry(*need).kind == "TABLE")
                    .partition(|need| name_of(self.entry(*need)) == child);
                if parents.iter().any(|parent| self.owned.contains(parent)) {
                    self.owned.extend(children);
                }
            }
            if self.owned.len() == before {
                return;
            }
        }
    }

    fn own_schema(&mut self, schema: &str) -> Result<(), NoSuchPart> {
        let all = self.toc.entries.iter().enumerate();
        let own = all.filter(|(_, entry)| {
            entry.schema == schema && RELATIONS.contains(&entry.kind.as_str())
        });
        self.owned = own.map(|(at, _)| at).collect();
        let is_schema = |entry: &&Entry| entry.kind == "SCHEMA" && entry.tag == schema;
        if self.owned.is_empty() && !self.toc.entries.iter().any(|entry| is_schema(&entry)) {
            let schemas: BTreeSet<&str> = self
                .toc
                .entries
                .iter()
                .map(|entry| entry.schema.as_str())
                .filter(|schema| !schema.is_empty())
                .collect();
            return Err(NoSuchPart {
                reason: format!("the dump holds no schema {schema}"),
                hint: near(schema, schemas.into_iter().map(str::to_owned)),
            });
        }
        for (at, entry) in self.toc.entries.iter().enumerate() {
            let is_own = entry.schema == schema || is_schema(&entry);
            let kind = entry.kind.as_str();
            let is_attached = OF_TABLE.contains(&kind) && kind != "SEQUENCE";
            let is_other = is_attached
                || RELATIONS.contains(&kind)
                || ABOUT_ANOTHER.contains(&kind)
                || OF_DATABASE.contains(&kind);
            if is_own && !is_other {
                self.include(at);
            }
        }
        Ok(())
    }

    /// The wanted tables, with all that their definitions need: also tables that they inherit from, without rows.
    fn add_owned(&mut self) {
        for at in self.owned.clone() {
            if self.entry(at).kind == "TABLE" {
                let (needed, _) = self.closure(at);
                self.included.extend(needed);
            } else {
                self.include(at);
            }
        }
    }

    /// What belongs to the wanted tables, and what describes any entry that is included.
    fn add_attached(&mut self) {
        let of_table = self.all_of(OF_TABLE);
        let sequence_values = self.all_of(&["SEQUENCE SET"]);
        for at in of_table {
            if self.needs(at).any(|need| self.owned.contains(&need)) {
                self.include(at);
            }
        }
        for at in sequence_values {
            if self.needs(at).any(|need| self.included.contains(&need)) {
                self.included.insert(at);
            }
        }
        for at in self.all_of(ABOUT_ANOTHER) {
            let needs: Vec<usize> = self.needs(at).collect();
            if !needs.is_empty() && needs.iter().all(|need| self.included.contains(need)) {
                self.included.insert(at);
            }
        }
    }

    /// Includes the entry at `at` with all that it needs, unless that is a table or a view that is not wanted.
    fn include(&mut self, at: usize) {
        let (needed, relation) = self.closure(at);
        let Some(relation) = relation else {
            self.included.extend(needed);
            return;
        };
        let entry = self.entry(at);
        // An attachment to what is not there is no loss.
        if !entry.kind.ends_with("ATTACH") {
            let (kind, name) = (entry.kind.to_lowercase(), shown(entry));
            let other = shown(self.entry(relation));
            self.left_out
                .insert(format!("{kind} {name}: it needs {other}"));
        }
    }

    /// All that the entry at `at` needs, itself included; and the first relation among it that is not wanted.
    fn closure(&self, at: usize) -> (Vec<usize>, Option<usize>) {
        let (mut seen, mut unwanted) = (HashSet::from([at]), None);
        let mut waiting = vec![at];
        while let Some(next) = waiting.pop() {
            let kind = self.entry(next).kind.as_str();
            let is_relation = RELATIONS.contains(&kind) || kind.ends_with(" DATA");
            // Its rows come with a table that is wanted.
            let is_own = self.owned.contains(&next)
                || kind.ends_with(" DATA") && self.needs(next).any(|it| self.owned.contains(&it));
            if next != at && is_relation && !is_own {
                unwanted.get_or_insert(next);
            }
            for need in self.needs(next) {
                if seen.insert(need) {
                    waiting.push(need);
                }
            }
        }
        (seen.into_iter().collect(), unwanted)
    }

    fn conclude(self) -> Selection {
        let tables = self.owned.iter().map(|at| self.entry(*at));
        let tables = tables.filter(|entry| entry.kind == "TABLE");
        let blobs = self
            .toc
            .entries
            .iter()
            .any(|it| it.kind.starts_with("BLOB"));
        let blobs = blobs.then(|| "large objects: they belong to no table".to_owned());
        Selection {
            tables: Some(tables.map(name_of).collect()),
            // In the order of the dump, as its data comes.
            ids: Some(self.included.iter().map(|at| self.entry(*at).id).collect()),
            left_out: self.left_out.iter().cloned().chain(blobs).collect(),
        }
    }
}

#[cfg(test)]
#[path = "selection_tests.rs"]
mod tests;
