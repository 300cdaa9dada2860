//! Whether a server's certificate leads to a trusted root, by OpenSSL's rules (`X509_verify_cert`). Pure.
//!
//! `rustls` has stricter rules: it refuses version 1, and a certificate that is its own authority. It also has laxer ones:
//! it trusts an intermediate authority without its root, and roots that have expired.

use rustls::pki_types::UnixTime;

use super::certificate::{Algorithms, Certificate};
use super::name_constraints::judge_names;
use super::revocation::{RevocationList, judge_revocation};

/// A longer chain is refused, and so is a search that needs more signatures.
const LONGEST: usize = 10;
const MOST_SIGNATURES: usize = 100;

/// Who is trusted.
#[derive(Debug)]
pub(super) struct Trust {
    pub(super) roots: Vec<Certificate>,
    /// `None` where revocation is not checked. Otherwise each authority of a chain needs a list (`X509_V_FLAG_CRL_CHECK_ALL`).
    pub(super) revoked: Option<Vec<RevocationList>>,
    pub(super) algorithms: Algorithms,
}

/// Looks for a chain from `leaf` over the certificates that the server `sent` to a root of `trust`.
///
/// # Errors
/// In OpenSSL's words, when there is none.
pub(super) fn judge_chain(
    leaf: &Certificate,
    sent: &[Certificate],
    trust: &Trust,
    now: UnixTime,
) -> Result<(), &'static str> {
    let mut search = Search {
        sent,
        trust,
        now,
        signatures: 0,
    };
    search.complete(&mut vec![leaf])
}

struct Search<'a> {
    sent: &'a [Certificate],
    trust: &'a Trust,
    now: UnixTime,
    signatures: usize,
}

impl<'a> Search<'a> {
    fn complete(&mut self, chain: &mut Vec<&'a Certificate>) -> Result<(), &'static str> {
        let Some(last) = chain.last().copied() else {
            return Err("no certificate");
        };
        let trusted = self.trust.roots.iter().any(|root| root.is_same_as(last));
        if last.is_self_signed() {
            return match (trusted, chain.len()) {
                (true, _) => judge(chain, self.trust, self.now),
                (false, 1) => Err("self-signed certificate"),
                (false, _) => Err("self-signed certificate in certificate chain"),
            };
        }
        let mut reason = match trusted {
            true => "unable to get issuer certificate",
            false => "unable to get local issuer certificate",
        };
        if chain.len() == LONGEST {
            return Err("certificate chain too long");
        }
        // As OpenSSL does: what is trusted comes before what was sent.
        for issuer in self.trust.roots.iter().chain(self.sent) {
            let met = chain
                .iter()
                .any(|certificate| certificate.is_same_as(issuer));
            if met || !last.may_come_from(issuer) {
                continue;
            }
            self.signatures += 1;
            if self.signatures > MOST_SIGNATURES {
                return Err("certificate chain too long");
            }
            if !last.is_signed_by(issuer, self.trust.algorithms) {
                reason = "certificate signature failure";
                continue;
            }
            chain.push(issuer);
            match self.complete(chain) {
                Ok(()) => return Ok(()),
                Err(why) => reason = why,
            }
            chain.pop();
        }
        Err(reason)
    }
}

/// Judges a whole chain, from the server's certificate to the root.
fn judge(chain: &[&Certificate], trust: &Trust, now: UnixTime) -> Result<(), &'static str> {
    // Authorities below the present one, those with a name of their own.
    let mut below = 0;
    for (index, certificate) in chain.iter().enumerate() {
        if certificate.has_unhandled_critical_extension() {
            return Err("unhandled critical extension");
        }
        if index > 0 && !certificate.is_authority(index + 1 == chain.len()) {
            return Err("invalid CA certificate");
        }
        if certificate.is_of_proxy() {
            return Err("proxy certificates not allowed");
        }
        let is_servers = index > 0
            || (certificate.has_servers_key_usage() && certificate.has_servers_netscape_type());
        if !(certificate.serves_servers() && is_servers) {
            return Err("unsuitable certificate purpose");
        }
        let longest = certificate.path_length().map(usize::from);
        if index > 0 && longest.is_some_and(|longest| below > longest) {
            return Err("path length constraint exceeded");
        }
        if index > 0 && !certificate.is_self_issued() {
            below += 1;
        }
        certificate.judge_time(now)?;
        if let Some(lists) = &trust.revoked {
            let issuer = chain.get(index + 1).unwrap_or(certificate);
            judge_revocation(certificate, issuer, lists, trust.algorithms, now)?;
        }
    }
    judge_names(chain)
}
