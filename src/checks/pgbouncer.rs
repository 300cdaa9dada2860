//! The figures of PgBouncer's console, as numbers to judge. Pure.

use std::collections::HashMap;

use super::values::Value;
use crate::pgbouncer::{Clients, Database, Pool};

/// Clients that wait, by pool; the console's own pool is left out.
pub(super) fn waiting(pools: &[Pool]) -> Vec<Value> {
    let pools = pools.iter().filter(|pool| pool.database != "pgbouncer");
    let value = |pool: &Pool| Value {
        object: Some(pool_name(pool)),
        number: Some(number(pool.cl_waiting)),
        // 0 for a client that is stuck at its login.
        detail: (!pool.maxwait.is_zero())
            .then(|| format!("the first waits for {:.1} s", pool.maxwait.as_secs_f64())),
    };
    pools.map(value).collect()
}

/// What is used, in percent of what may be.
pub(super) fn saturation(clients: Clients, pools: &[Pool], databases: &[Database]) -> Vec<Value> {
    let value = |object: String, used: u64, most: u64| Value {
        object: Some(object),
        number: (most > 0).then(|| 100.0 * number(used) / number(most)),
        detail: Some(format!("{used} of {most}")),
    };
    let named: HashMap<&str, &Database> = databases
        .iter()
        .map(|database| (database.name.as_str(), database))
        .collect();
    let mut values = vec![value("clients".to_owned(), clients.used, clients.max)];
    for pool in pools.iter().filter(|pool| pool.database != "pgbouncer") {
        // One that was forgotten since SHOW POOLS has no limit to be near.
        if let Some(database) = named.get(pool.database.as_str()) {
            let most = database.pool_size + database.reserve_pool_size;
            values.push(value(pool_name(pool), pool.sv_active, most));
        }
    }
    let limited = databases
        .iter()
        .filter(|database| database.max_connections > 0);
    values.extend(limited.map(|database| {
        let object = format!("database {}", database.name);
        value(
            object,
            database.current_connections,
            database.max_connections,
        )
    }));
    values
}

fn pool_name(pool: &Pool) -> String {
    format!("pool {}/{}", pool.database, pool.user)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pool(database: &str, cl_waiting: u64, sv_active: u64, maxwait: u64) -> Pool {
        Pool {
            database: database.to_owned(),
            user: "app".to_owned(),
            cl_active: 0,
            cl_waiting,
            sv_active,
            sv_idle: 0,
            sv_used: 0,
            sv_login: 0,
            maxwait: Duration::from_millis(maxwait),
        }
    }

    #[test]
    fn waiting_clients_are_told_by_pool_without_the_consoles_own() {
        let values = waiting(&[
            pool("pgbouncer", 9, 0, 0),
            pool("shop", 2, 0, 1500),
            pool("login", 1, 0, 0),
        ]);
        let shown: Vec<_> = values
            .iter()
            .map(|value| {
                (
                    value.object.as_deref(),
                    value.number,
                    value.detail.as_deref(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (
                    Some("pool shop/app"),
                    Some(2.0),
                    Some("the first waits for 1.5 s")
                ),
                (Some("pool login/app"), Some(1.0), None),
            ]
        );
    }

    #[test]
    fn saturation_is_what_is_used_of_what_may_be() {
        let database = |name: &str, max_connections| Database {
            name: name.to_owned(),
            pool_size: 8,
            reserve_pool_size: 2,
            current_connections: 3,
            max_connections,
            paused: false,
            disabled: false,
        };
        let clients = Clients { used: 50, max: 100 };
        let pools = [pool("shop", 0, 9, 0), pool("gone", 0, 1, 0)];
        let values = saturation(
            clients,
            &pools,
            &[database("shop", 0), database("small", 4)],
        );
        let shown: Vec<_> = values
            .iter()
            .map(|value| (value.object.as_deref().unwrap(), value.number.unwrap()))
            .collect();
        assert_eq!(
            shown,
            [
                ("clients", 50.0),
                ("pool shop/app", 90.0),
                ("database small", 75.0)
            ]
        );
    }
}
