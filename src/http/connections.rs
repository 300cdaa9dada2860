//! Accepts connections and bounds what each may cost: a client that only connects, or sends slowly, delays no other.
//!
//! No newcomer is refused. Where all places are taken, the oldest connection of the address that holds the most is closed:
//! a check by HAProxy or by a local program is answered long before its turn to be closed comes.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{sleep, timeout};

/// For the head of the request, from the moment of connecting.
const HEAD: Duration = Duration::from_secs(5);
/// For the whole connection: one request, and reading its answer.
const WHOLE: Duration = Duration::from_secs(15);
/// Bytes of a request's head that are held in memory.
const LARGEST_HEAD: usize = 16 * 1024;
/// Connections that are open at once, where the limit on open files allows them.
const MOST: usize = 512;
/// Between two attempts to accept, while the process or the machine has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two log lines about that.
const QUIET: Duration = Duration::from_secs(60);

/// How many connections may be open at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Places {
    /// From other machines.
    remote: usize,
    /// From this one: no number of remote clients takes these.
    local: usize,
}

impl Places {
    /// A quarter of the files that may be open: S3, PostgreSQL and the store need theirs.
    fn of(open_files: Option<u64>) -> Self {
        let quarter = open_files.map_or(MOST, |limit| {
            usize::try_from(limit / 4).unwrap_or(usize::MAX)
        });
        let all = quarter.clamp(8, MOST);
        Self {
            remote: all - all / 4,
            local: all / 4,
        }
    }
}

/// One connection that is open.
#[derive(Debug)]
struct Open {
    task: Id,
    address: IpAddr,
    is_local: bool,
    abort: AbortHandle,
}

/// Serves `routes` until the process ends; once `closing` ends, only the connections that are open.
///
/// Dropping the listener alone would close each connection that has not sent its request yet.
///
/// # Errors
/// Never: what accepting fails at is tried again.
pub(super) async fn serve(
    listener: TcpListener,
    closing: impl Future<Output = ()>,
    routes: Router,
    open_files: Option<u64>,
) -> io::Result<()> {
    let places = Places::of(open_files);
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .keep_alive(false)
        .max_buf_size(LARGEST_HEAD);
    let mut tasks = JoinSet::new();
    let mut open: Vec<Open> = Vec::new();
    let mut warned: Option<Instant> = None;
    tokio::pin!(closing);
    loop {
        tokio::select! {
            biased;
            () = &mut closing => break,
            Some(ended) = tasks.join_next_with_id() => {
                let task = ended.map_or_else(|error| error.id(), |(task, ())| task);
                open.retain(|one| one.task != task);
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let is_local = is_local(&stream, from);
                    make_room(&mut open, places, is_local);
                    let abort = tasks.spawn(answer(server.clone(), stream, routes.clone()));
                    open.push(Open { task: abort.id(), address: from.ip().to_canonical(), is_local, abort });
                }
                // That client is gone; the next one is not.
                Err(error) if is_about_one_client(&error) => {}
                Err(error) => {
                    if warned.is_none_or(|at| at.elapsed() > QUIET) {
                        warned = Some(Instant::now());
                        tracing::error!("HTTP connections cannot be accepted: {error}");
                    }
                    for is_local in [false, true] {
                        close_one(&mut open, is_local);
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }
    // Where systemd holds the socket too, new connections wait there.
    drop(listener);
    while tasks.join_next().await.is_some() {}
    pending().await
}

async fn answer(server: http1::Builder, stream: TcpStream, routes: Router) {
    let connection =
        server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    // How a client ends its connection is its own business.
    let _ = timeout(WHOLE, connection).await;
}

/// From this machine, by whichever of its addresses.
fn is_local(stream: &TcpStream, from: SocketAddr) -> bool {
    let from = from.ip().to_canonical();
    let own = stream.local_addr().map(|own| own.ip().to_canonical());
    from.is_loopback() || own.is_ok_and(|own| own == from)
}

fn is_about_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// Closes one connection where no place is left for another.
fn make_room(open: &mut Vec<Open>, places: Places, is_local: bool) {
    let limit = if is_local {
        places.local
    } else {
        places.remote
    };
    let taken = open.iter().filter(|one| one.is_local == is_local).count();
    if taken >= limit {
        close_one(open, is_local);
    }
}

fn close_one(open: &mut Vec<Open>, is_local: bool) {
    let here = |one: &Open| one.is_local == is_local;
    let addresses = open.iter().map(|one| here(one).then_some(one.address));
    if let Some(index) = choose_to_close(addresses) {
        open.remove(index).abort.abort();
    }
}

/// The index of the oldest connection of the address that holds the most; `None` entries are not to be chosen.
fn choose_to_close(addresses: impl Iterator<Item = Option<IpAddr>>) -> Option<usize> {
    let mut held: HashMap<IpAddr, (usize, usize)> = HashMap::new();
    for (index, address) in addresses.enumerate() {
        if let Some(address) = address {
            held.entry(address).or_insert((0, index)).0 += 1;
        }
    }
    let most = held
        .into_values()
        .max_by_key(|(count, oldest)| (*count, usize::MAX - *oldest));
    most.map(|(_, oldest)| oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_of_the_address_that_holds_the_most_is_closed() {
        let address = |last: u8| Some(IpAddr::from([10, 0, 2, last]));
        for (addresses, chosen) in [
            (vec![], None),
            (vec![None, None], None),
            (vec![address(1)], Some(0)),
            // HAProxy came first, and one client holds the rest.
            (vec![address(20), address(9), address(9)], Some(1)),
            (vec![None, address(1), address(2)], Some(1)),
        ] {
            let found = choose_to_close(addresses.iter().copied());
            assert_eq!(found, chosen, "{addresses:?}");
        }
    }

    #[test]
    fn places_are_bounded_by_the_files_that_may_be_open_and_some_are_local() {
        for (open_files, remote, local) in [
            (None, 384, 128),
            (Some(1_048_576), 384, 128),
            (Some(1024), 192, 64),
            (Some(16), 6, 2),
        ] {
            assert_eq!(
                Places::of(open_files),
                Places { remote, local },
                "{open_files:?}"
            );
        }
    }

    #[test]
    fn a_client_that_left_is_no_reason_to_pause_and_a_full_table_is() {
        for (code, one_client) in [
            (103, true),
            (4, true),
            (24, false),
            (23, false),
            (12, false),
        ] {
            let error = io::Error::from_raw_os_error(code);
            assert_eq!(is_about_one_client(&error), one_client, "{error}");
        }
    }
}
