//! One connection for all checks together.

use std::ops::Deref;
use std::pin::Pin;
use std::time::Duration;

use deadpool_postgres::{
    Connect, Manager, ManagerConfig, Object, PoolError, RecyclingMethod, Runtime, TimeoutType,
    Timeouts,
};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Error};

use super::connect::{log_in, settings};
use super::session::Access;
use super::{PostgresError, Target};

const SIZE: usize = 1;

/// For the connection's turn: a check whose query hangs holds it until its statement times out.
const TURN: Duration = Duration::from_secs(15);

/// Connections that are kept between checks, and made when they are asked for.
#[derive(Clone)]
pub(crate) struct Pool {
    pool: deadpool_postgres::Pool,
    target: Target,
}

/// A connection that goes back to its pool when this is dropped.
pub(crate) struct PooledClient(Object);

impl Deref for PooledClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

/// A connection for a query that may change its session; it is closed unless it is given back.
pub(crate) struct BorrowedClient(Option<Object>);

impl Deref for BorrowedClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        let object = self.0.as_ref();
        object.expect("it is taken only by what consumes this")
    }
}

impl Drop for BorrowedClient {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}

impl BorrowedClient {
    /// Takes settings and the like back, and puts the connection into its pool. One whose transaction is open is closed.
    pub(crate) async fn give_back(mut self) {
        // PostgreSQL logs a ROLLBACK without a transaction, so that is not tried.
        if self.batch_execute("DISCARD ALL").await.is_ok() {
            drop(self.0.take());
        }
    }
}

/// How the pool logs in: as every session of xdb's.
struct Login {
    target: Target,
    statement_timeout: Duration,
}

/// A connection, and the task that drives it.
type LoggedIn<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

impl Connect for Login {
    fn connect(&self, _: &tokio_postgres::Config) -> LoggedIn<'_> {
        Box::pin(log_in(
            &self.target,
            self.statement_timeout,
            Access::ReadOnly,
        ))
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("target", &self.target)
            .finish()
    }
}

impl Pool {
    /// Connects to nothing yet. Sessions are read-only; a statement may take `statement_timeout`.
    ///
    /// # Errors
    /// When the settings make no pool.
    pub(crate) fn new(target: &Target, statement_timeout: Duration) -> Result<Self, PostgresError> {
        let config = settings(target, statement_timeout, Access::ReadOnly);
        // Fast: a broken connection is seen when it is used, and the check then says so.
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        let limit = Some(target.connect_timeout);
        let login = Login {
            target: target.clone(),
            statement_timeout,
        };
        let pool =
            deadpool_postgres::Pool::builder(Manager::from_connect(config, login, recycling))
                .max_size(SIZE)
                .runtime(Runtime::Tokio1)
                .timeouts(Timeouts {
                    wait: Some(TURN),
                    create: limit,
                    recycle: limit,
                })
                .build()
                .map_err(|_| PostgresError::Pool)?;
        Ok(Self {
            pool,
            target: target.clone(),
        })
    }

    /// A connection that is idle, or a new one.
    ///
    /// # Errors
    /// When the server does not answer in time or refuses, or the connection stays busy.
    pub(crate) async fn get(&self) -> Result<PooledClient, PostgresError> {
        let client = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => PostgresError::Connect {
                target: self.target.shown(),
                error,
            },
            PoolError::Timeout(TimeoutType::Wait) => PostgresError::Busy {
                secs: TURN.as_secs(),
            },
            PoolError::Timeout(_) => PostgresError::Silent {
                target: self.target.shown(),
                secs: self.target.connect_timeout.as_secs(),
            },
            _ => PostgresError::Pool,
        })?;
        Ok(PooledClient(client))
    }

    /// The same for a query that xdb does not know.
    ///
    /// # Errors
    /// As [`Pool::get`].
    pub(crate) async fn borrow(&self) -> Result<BorrowedClient, PostgresError> {
        let client = self.get().await?;
        Ok(BorrowedClient(Some(client.0)))
    }
}
