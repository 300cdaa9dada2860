//! What the console's `SHOW` commands say, typed.

use std::time::Duration;

use super::{Row, RowError};

/// One row of `SHOW POOLS`: the connections of one database and user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    pub database: String,
    pub user: String,
    /// Clients that have a server, or ask for none at the moment.
    pub cl_active: u64,
    /// Clients that wait for a server, or at their login.
    pub cl_waiting: u64,
    pub sv_active: u64,
    pub sv_idle: u64,
    /// Idle for longer than `server_check_delay`, so that a query tests them before a client gets them.
    pub sv_used: u64,
    pub sv_login: u64,
    /// How long the first waiting client waits; 0 also for one that is stuck at its login.
    pub maxwait: Duration,
}

impl Pool {
    /// Connections to PostgreSQL that are logged in.
    pub(crate) fn servers(&self) -> u64 {
        self.sv_active + self.sv_idle + self.sv_used
    }

    /// Reads one `SHOW POOLS` row by column name; releases add columns.
    ///
    /// # Errors
    /// When a column is missing or no number.
    pub(crate) fn from_row(row: &Row) -> Result<Self, RowError> {
        // PgBouncer splits one wait: whole seconds, then the microsecond remainder.
        let whole = Duration::from_secs(row.get("maxwait")?);
        let remainder = Duration::from_micros(row.get("maxwait_us")?);
        Ok(Self {
            database: row.get("database")?,
            user: row.get("user")?,
            cl_active: row.get("cl_active")?,
            cl_waiting: row.get("cl_waiting")?,
            sv_active: row.get("sv_active")?,
            sv_idle: row.get("sv_idle")?,
            sv_used: row.get("sv_used")?,
            sv_login: row.get("sv_login")?,
            maxwait: whole + remainder,
        })
    }
}

/// One row of `SHOW DATABASES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Database {
    pub name: String,
    /// Servers for each user of this database.
    pub pool_size: u64,
    /// Further ones when clients wait; `reserve_pool` before 1.24.
    pub reserve_pool_size: u64,
    /// Servers of all users together.
    pub current_connections: u64,
    /// For all users together; 0 is no limit.
    pub max_connections: u64,
    pub paused: bool,
    pub disabled: bool,
}

impl Database {
    /// Reads one `SHOW DATABASES` row by column name.
    ///
    /// # Errors
    /// When a column is missing or not of its type.
    pub(crate) fn from_row(row: &Row) -> Result<Self, RowError> {
        let reserve = match row.get_if_there("reserve_pool_size")? {
            Some(size) => size,
            None => row.get("reserve_pool")?,
        };
        let flag = |column: &str| row.get::<u8>(column).map(|flag| flag != 0);
        Ok(Self {
            name: row.get("name")?,
            pool_size: row.get("pool_size")?,
            reserve_pool_size: reserve,
            current_connections: row.get("current_connections")?,
            max_connections: row.get("max_connections")?,
            paused: flag("paused")?,
            disabled: flag("disabled")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &[(&str, &str)] = &[
        ("database", "shop"),
        ("user", "app"),
        ("cl_active", "1"),
        ("cl_waiting", "2"),
        ("sv_active", "3"),
        ("sv_idle", "4"),
        ("sv_used", "0"),
        ("sv_login", "0"),
        ("maxwait", "31"),
        ("maxwait_us", "203252"),
    ];

    #[test]
    fn a_wait_is_put_together_from_its_two_columns() {
        let pool = Pool::from_row(&Row::of(POOL)).unwrap();
        assert_eq!(pool.maxwait, Duration::from_micros(31_203_252));
        assert_eq!((pool.cl_waiting, pool.sv_active), (2, 3));
        // A column that a later release adds changes nothing.
        let later = [POOL, &[("load_balance_hosts", "")]].concat();
        assert_eq!(Pool::from_row(&Row::of(&later)), Ok(pool));
    }

    #[test]
    fn a_missing_column_and_a_strange_value_are_errors_and_not_zero() {
        assert_eq!(
            Pool::from_row(&Row::of(&POOL[..9])),
            Err(RowError::Missing("maxwait_us".to_owned()))
        );
        let strange = [POOL, &[("cl_waiting", "many")]].concat();
        let error = Pool::from_row(&Row::of(&strange)).unwrap_err();
        assert_eq!(error.to_string(), "cl_waiting is \"many\"");
    }

    #[test]
    fn the_reserve_is_read_under_both_of_its_names() {
        for name in ["reserve_pool", "reserve_pool_size"] {
            let row = Row::of(&[
                ("name", "shop"),
                ("pool_size", "20"),
                (name, "5"),
                ("current_connections", "1"),
                ("max_connections", "0"),
                ("paused", "0"),
                ("disabled", "1"),
            ]);
            let database = Database::from_row(&row).unwrap();
            assert_eq!((database.reserve_pool_size, database.disabled), (5, true));
        }
    }
}
