//! Connects to the first of several addresses that answers.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// How long an address has before the next one is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// Tries `addresses` in their order; one that does not answer holds up none of the others.
///
/// # Errors
/// The last one's, when all of them refuse.
pub(super) async fn connect_first(addresses: &[SocketAddr]) -> io::Result<(TcpStream, SocketAddr)> {
    let mut rest = addresses.iter().copied();
    let mut running = FuturesUnordered::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    let start = |address: SocketAddr| async move {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok((stream, address))
    };
    running.extend(rest.next().map(start));
    while !running.is_empty() {
        let more = rest.len() > 0;
        tokio::select! {
            biased;
            Some(connected) = running.next() => match connected {
                Ok(connected) => return Ok(connected),
                Err(error) => last = error,
            },
            () = sleep(HEAD_START), if more => {}
        }
        running.extend(rest.next().map(start));
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_address_of_the_other_family_is_tried_where_nothing_listens() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let there = listener.local_addr().unwrap();
        // Refused, or without IPv6 on this machine no address of it.
        let first = SocketAddr::from((Ipv6Addr::LOCALHOST, there.port()));
        let (_, found) = connect_first(&[first, there]).await.unwrap();
        assert_eq!(found, there);
    }
}
