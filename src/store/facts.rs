//! Small things that a node must not forget.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::OptionalExtension;

use super::{Reading, StoreError, Writing, query, time};

impl Reading<'_> {
    /// When this node's role last changed in the cluster `system_identifier`; `None` when it never did.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn role_changed_at(&self, system_identifier: u64) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.role(system_identifier)?.and_then(|(_, at)| at))
    }

    /// The role that was last seen, in recovery or not, and when it became so.
    fn role(
        &self,
        system_identifier: u64,
    ) -> Result<Option<(bool, Option<Timestamp>)>, StoreError> {
        let Some(value) = self.fact(&role_of(system_identifier))? else {
            return Ok(None);
        };
        let (role, changed) = value.split_once(' ').unwrap_or((&value, ""));
        let changed = changed.parse().ok().map(time).transpose()?;
        Ok(Some((role == REPLICA, changed)))
    }

    /// How often the WAL-G program's daemon failed since `since`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn program_failures(&self, since: Timestamp) -> Result<usize, StoreError> {
        let noted = self.fact(PROGRAM_FAILURES)?.unwrap_or_default();
        let times = noted.split(' ').filter_map(|at| at.parse::<i64>().ok());
        Ok(times.filter(|at| *at >= since.as_microsecond()).count())
    }

    /// Names that the cluster had before, under which alerts may stand in Redis.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn former_cluster_names(&self) -> Result<Vec<String>, StoreError> {
        let names = self.fact(FORMER_CLUSTERS)?.unwrap_or_default();
        Ok(names.split_whitespace().map(str::to_owned).collect())
    }

    /// What was last read of the repository `origin`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn catalog(&self, origin: &str) -> Result<Option<String>, StoreError> {
        self.fact(&format!("{CATALOG}{origin}"))
    }

    /// All but the catalogs, which can be read from the bucket again.
    pub(super) fn lasting_facts(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let collect = || {
            let mut statement = self
                .0
                .prepare("SELECT name, value FROM facts WHERE substr(name, 1, length(?1)) <> ?1")?;
            let rows = statement.query_map([CATALOG], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<Result<_, _>>()
        };
        collect().map_err(query("read the facts in"))
    }

    pub(super) fn fact(&self, name: &str) -> Result<Option<String>, StoreError> {
        let value = self
            .0
            .query_row("SELECT value FROM facts WHERE name = ?1", [name], |row| {
                row.get(0)
            })
            .optional();
        value.map_err(query("read a fact in"))
    }
}

impl Writing<'_> {
    /// Keeps the role that is seen; gives whether it is another than the last one. The first one is no change.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn see_role(
        &self,
        system_identifier: u64,
        in_recovery: bool,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let known = self.role(system_identifier)?;
        if known.is_some_and(|(known, _)| known == in_recovery) {
            return Ok(false);
        }
        let role = if in_recovery { REPLICA } else { PRIMARY };
        let value = match known {
            Some(_) => format!("{role} {}", now.as_microsecond()),
            None => role.to_owned(),
        };
        self.set_fact(&role_of(system_identifier), &value)?;
        Ok(known.is_some())
    }

    /// Notes that the WAL-G program's daemon failed; the last 32 times are kept.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn note_program_failure(&self, at: Timestamp) -> Result<(), StoreError> {
        let noted = self.fact(PROGRAM_FAILURES)?.unwrap_or_default();
        let mut times: Vec<&str> = noted.split_whitespace().collect();
        let at = at.as_microsecond().to_string();
        times.push(&at);
        let kept = &times[times.len().saturating_sub(32)..];
        self.set_fact(PROGRAM_FAILURES, &kept.join(" "))
    }

    /// Keeps what was read of the repository `origin`.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn keep_catalog(&self, origin: &str, content: &str) -> Result<(), StoreError> {
        self.set_fact(&format!("{CATALOG}{origin}"), content)
    }

    /// Forgets what was read of any repository.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn forget_catalogs(&self) -> Result<(), StoreError> {
        let delete = "DELETE FROM facts WHERE substr(name, 1, length(?1)) = ?1";
        let deleted = self.0.0.execute(delete, [CATALOG]);
        deleted.map(|_| ()).map_err(query("forget a catalog in"))
    }

    /// Notes the cluster's configured name; whether it was another before.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn see_cluster_name(&self, name: &str) -> Result<bool, StoreError> {
        let known = self.fact(CLUSTER)?;
        if known.as_deref() == Some(name) {
            return Ok(false);
        }
        self.set_fact(CLUSTER, name)?;
        let Some(former) = known else {
            return Ok(false);
        };
        let mut names = self.former_cluster_names()?;
        names.retain(|one| *one != former && one != name);
        names.push(former);
        self.set_fact(FORMER_CLUSTERS, &names.join(" "))?;
        Ok(true)
    }

    /// Forgets a former name, of which nothing is left.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn forget_cluster_name(&self, former: &str) -> Result<(), StoreError> {
        let mut names = self.former_cluster_names()?;
        names.retain(|one| one != former);
        self.set_fact(FORMER_CLUSTERS, &names.join(" "))
    }

    pub(super) fn forget_fact(&self, name: &str) -> Result<(), StoreError> {
        let deleted = self
            .0
            .0
            .execute("DELETE FROM facts WHERE name = ?1", [name]);
        deleted.map(|_| ()).map_err(query("forget a fact in"))
    }

    pub(super) fn set_fact(&self, name: &str, value: &str) -> Result<(), StoreError> {
        let written = self.0.0.execute(
            "INSERT OR REPLACE INTO facts (name, value) VALUES (?1, ?2)",
            [name, value],
        );
        written.map(|_| ()).map_err(query("write a fact to"))
    }
}

/// A random name of the file that it is in.
pub(super) const STORE: &str = "store";
const CLUSTER: &str = "cluster";
const FORMER_CLUSTERS: &str = "former names of the cluster";
const CATALOG: &str = "catalog of ";
const PROGRAM_FAILURES: &str = "failures of the program's daemon";
const PRIMARY: &str = "primary";
const REPLICA: &str = "replica";

fn role_of(system_identifier: u64) -> String {
    format!("role.{system_identifier}")
}
