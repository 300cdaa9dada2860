//! The connection, made when it is first used, and again after it was lost.

use std::path::PathBuf;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    Arg, AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue,
    IntoConnectionInfo, TlsCertificates,
};
use secrecy::ExposeSecret;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::RedisError;

/// A handle that outlives every connection; commands through it may run side by side.
pub struct Redis {
    info: ConnectionInfo,
    /// Of a server with TLS; `None`, the system's.
    ca_cert_file: Option<PathBuf>,
    /// Host and port, as messages name it.
    server: String,
    timeout: Duration,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// Connects to nothing yet: a Redis that is away must not keep xdb from starting.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn new(config: &crate::config::Redis) -> Result<Self, RedisError> {
        let url = |error: ::redis::RedisError| RedisError::Url {
            reason: error.to_string(),
        };
        let info = config.url.as_str().into_connection_info().map_err(url)?;
        let mut login = info.redis_settings().clone();
        if let Some(user) = &config.user {
            login = login.set_username(user);
        }
        if let Some(password) = &config.password {
            login = login.set_password(password.expose_secret());
        }
        let server = info.addr().to_string();
        Ok(Self {
            info: info.set_redis_settings(login),
            ca_cert_file: config.ca_cert_file.clone(),
            server,
            timeout: config.timeout,
            connection: Mutex::new(None),
        })
    }

    /// Runs `command`, which must do no harm when it is run twice.
    ///
    /// A connection that was lost while idle shows only when it is used: then a new one is tried, once.
    ///
    /// # Errors
    /// When Redis does not answer in time, refuses the login or the command.
    pub(crate) async fn ask<T: FromRedisValue>(
        &self,
        what: &'static str,
        command: &Cmd,
    ) -> Result<T, RedisError> {
        let (connection, was_there) = self.connection().await?;
        let answer = match self.send(connection, command).await {
            Err(Failure::Lost(_)) if was_there => {
                let (connection, _) = self.connection().await?;
                self.send(connection, command).await
            }
            answer => answer,
        };
        answer.map_err(|failure| {
            let server = self.server.clone();
            match failure {
                Failure::Refused(error) if told(&error).contains(WRONG_TYPE) => {
                    RedisError::WrongType {
                        what,
                        server,
                        key: wrong_key(&error, command),
                    }
                }
                Failure::Lost(error) | Failure::Refused(error) => RedisError::Command {
                    what,
                    server,
                    reason: told(&error),
                },
                Failure::Silent => RedisError::Command {
                    what,
                    server,
                    reason: format!("no answer within {:?}", self.timeout),
                },
            }
        })
    }

    /// The connection, and whether it was there before.
    async fn connection(&self) -> Result<(MultiplexedConnection, bool), RedisError> {
        let mut connection = self.connection.lock().await;
        if let Some(connection) = connection.as_ref() {
            return Ok((connection.clone(), true));
        }
        // The crate's own defaults are 1 s and 500 ms; `send` has the deadline for answers.
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_dns_resolver(super::resolver::Reachable);
        let client = self.client()?;
        let connecting = client.get_multiplexed_async_connection_with_config(&settings);
        let failed = |reason| RedisError::Connect {
            server: self.server.clone(),
            reason,
        };
        let made = timeout(self.timeout, connecting)
            .await
            .map_err(|_| failed(format!("no answer within {:?}", self.timeout)))?
            .map_err(|error| failed(error.to_string()))?;
        *connection = Some(made.clone());
        Ok((made, false))
    }

    /// The certificates are read for each connection: they are replaced while xdb runs.
    fn client(&self) -> Result<Client, RedisError> {
        let made = match &self.ca_cert_file {
            Some(path) if matches!(self.info.addr(), ConnectionAddr::TcpTls { .. }) => {
                let read = std::fs::read(path);
                let root_cert = read.map_err(|source| RedisError::Certificates {
                    path: path.clone(),
                    source,
                })?;
                let certificates = TlsCertificates {
                    client_tls: None,
                    root_cert: Some(root_cert),
                };
                Client::build_with_tls(self.info.clone(), certificates)
            }
            _ => Client::open(self.info.clone()),
        };
        made.map_err(|error| RedisError::Connect {
            server: self.server.clone(),
            reason: error.to_string(),
        })
    }

    /// Forgets the connection when it is of no use any more; one that hangs is so, too.
    async fn send<T: FromRedisValue>(
        &self,
        mut connection: MultiplexedConnection,
        command: &Cmd,
    ) -> Result<T, Failure> {
        let answer = timeout(self.timeout, command.query_async(&mut connection)).await;
        let failure = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) if is_lost(&error) => Failure::Lost(error),
            Ok(Err(error)) => return Err(Failure::Refused(error)),
            Err(_) => Failure::Silent,
        };
        *self.connection.lock().await = None;
        Err(failure)
    }
}

/// Redis's own word, such as READONLY, which the crate leaves out of some errors, and its message.
fn told(error: &::redis::RedisError) -> String {
    let text = error.to_string();
    match error.code() {
        Some(code) if !text.contains(code) => format!("{code} ({text})"),
        _ => text,
    }
}

/// Redis's word for a key that another program has written, as another type.
const WRONG_TYPE: &str = "WRONGTYPE";

/// The key that `error` is about. Redis does not name it; xdb's own script does.
fn wrong_key(error: &::redis::RedisError, command: &Cmd) -> String {
    let named = error.detail().filter(|detail| detail.starts_with("xdb:"));
    named.map_or_else(|| keys_of(command).join(" or "), str::to_owned)
}

/// The keys of `command`: the first argument, or those of a script.
fn keys_of(command: &Cmd) -> Vec<String> {
    let words = command.args_iter().map(|word| match word {
        Arg::Simple(word) => String::from_utf8_lossy(word).into_owned(),
        _ => String::new(),
    });
    let words: Vec<String> = words.collect();
    match words.as_slice() {
        [name, _, count, rest @ ..] if name == "EVAL" => {
            let count = count.parse().unwrap_or(0);
            rest.iter().take(count).cloned().collect()
        }
        [_, key, ..] => vec![key.clone()],
        _ => Vec::new(),
    }
}

/// Whether another connection may do better: it is cut, or leads to a server that takes no writes any more. After a
/// failover of Redis the name may lead to another one.
fn is_lost(error: &::redis::RedisError) -> bool {
    /// What a replica says, one that lost its master, and one that reads its data.
    const ELSEWHERE: [&str; 3] = ["READONLY", "MASTERDOWN", "LOADING"];
    let says = |word: &&str| error.code() == Some(*word) || error.to_string().contains(*word);
    error.is_io_error() || error.is_unrecoverable_error() || ELSEWHERE.iter().any(says)
}

enum Failure {
    Silent,
    Lost(::redis::RedisError),
    Refused(::redis::RedisError),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The error that Redis answers with `text`.
    fn answer(text: &str) -> ::redis::RedisError {
        let mut parser = ::redis::Parser::new();
        let value = parser
            .parse_value(format!("-{text}\r\n").as_bytes())
            .unwrap();
        value.extract_error().unwrap_err()
    }

    #[test]
    fn a_server_that_takes_no_writes_any_more_is_left() {
        for (text, lost) in [
            (
                "READONLY You can't write against a read only replica.",
                true,
            ),
            (
                "ERR Error running script: READONLY You can't write against a read only replica.",
                true,
            ),
            ("LOADING Redis is loading the dataset in memory", true),
            ("MASTERDOWN Link with MASTER is down", true),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                false,
            ),
            ("MISCONF Redis is configured to save RDB snapshots", false),
        ] {
            assert_eq!(is_lost(&answer(text)), lost, "{text}");
        }
    }

    #[test]
    fn a_key_of_another_type_is_named() {
        const WORDS: &str = "WRONGTYPE Operation against a key holding the wrong kind of value";
        let mut get = ::redis::cmd("HGETALL");
        get.arg("xdb:main:alerts:active");
        let mut script = ::redis::cmd("EVAL");
        script
            .arg("return 1")
            .arg(2)
            .arg("a")
            .arg("b")
            .arg("no key");
        for (text, command, key) in [
            (WORDS, &get, "xdb:main:alerts:active"),
            (WORDS, &script, "a or b"),
            (
                "WRONGTYPE xdb:main:alerts:events",
                &script,
                "xdb:main:alerts:events",
            ),
        ] {
            let error = answer(text);
            assert!(told(&error).contains(WRONG_TYPE), "{text}");
            assert_eq!(wrong_key(&error, command), key, "{text}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        let redis = Redis::new(&crate::config::Redis {
            url: "redis://management:6379/2".to_owned(),
            user: None,
            password: Some("hunter2".into()),
            ca_cert_file: None,
            timeout: Duration::from_secs(1),
        })
        .unwrap();
        assert_eq!(
            format!("{redis:?}"),
            r#"Redis { server: "management:6379", .. }"#
        );
    }
}
