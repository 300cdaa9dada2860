//! libpq's `requirepeer`: who listens at a Unix socket.

use std::fs;

use tokio::net::UnixStream;

use crate::model::account_name;

/// # Errors
/// In libpq's words, when the server at the other end of `stream` does not run as the account `wanted`.
pub(super) fn judge_peer(stream: &UnixStream, wanted: &str) -> Result<(), String> {
    let peer = stream.peer_cred();
    let uid = peer.map_err(|error| format!("could not get peer credentials: {error}"))?;
    let uid = uid.uid();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    match account_name(uid, &passwd) {
        Some(name) if name == wanted => Ok(()),
        Some(name) => Err(format!(
            "requirepeer specifies {wanted:?}, but actual peer user name is {name:?}"
        )),
        None => Err(format!(
            "requirepeer specifies {wanted:?}, but /etc/passwd has no user with ID {uid}"
        )),
    }
}
