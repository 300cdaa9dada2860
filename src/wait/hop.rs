//! The hops between an application and its database, and where to look when one fails. Pure.

use std::fmt;

/// A part of the way from an application to its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hop {
    Name,
    HaProxy,
    PgBouncer,
    PostgreSql,
    Role,
    /// The role, its password, the database and TLS.
    Login,
}

/// As `haproxy`: the name in the last line, in `--json` and in the runbook.
impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "name",
            Self::HaProxy => "haproxy",
            Self::PgBouncer => "pgbouncer",
            Self::PostgreSql => "postgres",
            Self::Role => "role",
            Self::Login => "login",
        })
    }
}

impl Hop {
    /// Who speaks PostgreSQL's protocol first where this hop takes the connection: HAProxy only passes it on.
    pub(super) fn speaker(self) -> Self {
        match self {
            Self::HaProxy => Self::PgBouncer,
            other => other,
        }
    }

    /// What to look at when this hop is not ready.
    pub(crate) fn look_at(self) -> &'static str {
        match self {
            Self::Name => "getent hosts, /etc/hosts, infrastructure-ready.service",
            Self::HaProxy => {
                "systemctl status haproxy, and what it asks its servers: curl -i http://db1:8009/primary"
            }
            Self::PgBouncer => "systemctl status pgbouncer on the database node, and its log",
            Self::PostgreSql => {
                "PostgreSQL's log on the database node, and SHOW POOLS on PgBouncer's console"
            }
            Self::Role => {
                "SELECT pg_is_in_recovery() on both nodes, and where HAProxy sends this port"
            }
            Self::Login => {
                "xdb config show (wait.*, postgres.password), PgBouncer's auth_file, pg_hba.conf"
            }
        }
    }
}
