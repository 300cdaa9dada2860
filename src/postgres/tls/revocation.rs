//! Certificate revocation lists, as OpenSSL reads and chooses them (`get_crl_score`, `check_crl`, `cert_crl`). Pure.

use rustls::pki_types::UnixTime;
use x509_cert::crl::RevokedCert;
use x509_cert::der::asn1::{BitString, ContextSpecific};
use x509_cert::der::{Decode, Reader, SliceReader, TagNumber};
use x509_cert::ext::pkix::crl::dp::IssuingDistributionPoint;
use x509_cert::ext::pkix::name::{DistributionPointName, GeneralNames};
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, CrlDistributionPoints, CrlReason};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use super::certificate::{Algorithms, Certificate};

const REASON: &str = "2.5.29.21";
const DELTA: &str = "2.5.29.27";
const ISSUING_DISTRIBUTION_POINT: &str = "2.5.29.28";
const CERTIFICATE_ISSUER: &str = "2.5.29.29";
const AUTHORITY_KEY_IDENTIFIER: &str = "2.5.29.35";

const NO_LIST: &str = "unable to get certificate CRL";

/// A list, and the bytes that its signature covers.
#[derive(Debug, Clone)]
pub(super) struct RevocationList {
    signed: Vec<u8>,
    algorithm: AlgorithmIdentifierOwned,
    /// The same once more, within what is signed.
    signed_algorithm: AlgorithmIdentifierOwned,
    signature: BitString,
    issuer: Name,
    this_update: Time,
    next_update: Option<Time>,
    revoked: Vec<RevokedCert>,
    extensions: Extensions,
    scope: Option<IssuingDistributionPoint>,
    authority: Option<AuthorityKeyIdentifier>,
}

impl RevocationList {
    /// # Errors
    /// In words, when `der` is no revocation list.
    pub(super) fn parse(der: &[u8]) -> Result<Self, String> {
        Self::read(der).map_err(|error| error.to_string())
    }

    /// `x509_cert` has a type for it, which takes no list of version 1: that has no field for its version.
    fn read(der: &[u8]) -> x509_cert::der::Result<Self> {
        let (signed, algorithm, signature) = SliceReader::new(der)?.sequence(|parts| {
            let signed = parts.tlv_bytes()?.to_vec();
            Ok((
                signed,
                AlgorithmIdentifierOwned::decode(parts)?,
                BitString::decode(parts)?,
            ))
        })?;
        let mut list = SliceReader::new(&signed)?.sequence(|parts| {
            let _version = Option::<x509_cert::Version>::decode(parts)?;
            let signed_algorithm = AlgorithmIdentifierOwned::decode(parts)?;
            let issuer = Name::decode(parts)?;
            let this_update = Time::decode(parts)?;
            let next_update = Option::<Time>::decode(parts)?;
            let revoked = Option::<Vec<RevokedCert>>::decode(parts)?;
            let extensions = ContextSpecific::<Extensions>::decode_explicit(parts, TagNumber::N0)?;
            Ok(Self {
                signed: Vec::new(),
                algorithm,
                signed_algorithm,
                signature,
                issuer,
                this_update,
                next_update,
                revoked: revoked.unwrap_or_default(),
                extensions: extensions.map_or_else(Vec::new, |extensions| extensions.value),
                scope: None,
                authority: None,
            })
        })?;
        list.scope = decoded(&list.extensions, ISSUING_DISTRIBUTION_POINT)?;
        list.authority = decoded(&list.extensions, AUTHORITY_KEY_IDENTIFIER)?;
        list.signed = signed;
        Ok(list)
    }

    /// Whether `issuer` may have made it, for all reasons of a revocation, and of its own certificates.
    fn is_of(&self, issuer: &Certificate) -> bool {
        let is_part = self
            .scope
            .as_ref()
            .is_some_and(|scope| scope.indirect_crl || scope.only_some_reasons.is_some());
        let authority = self.authority.as_ref();
        issuer.is_called(&self.issuer)
            && authority.is_none_or(|authority| issuer.is_identified_by(authority))
            && !is_part
    }

    /// Whether it only lists what changed since another list.
    fn is_delta(&self) -> bool {
        self.extensions.iter().any(|it| id(it) == DELTA)
    }

    fn is_signed_by(&self, issuer: &Certificate, algorithms: Algorithms) -> bool {
        let signature = self.signature.as_bytes();
        self.algorithm == self.signed_algorithm
            && issuer.has_signed(&self.signed, &self.algorithm, signature, algorithms)
    }

    /// Whether it says something about `certificate` (`crl_crldp_check`).
    fn covers(&self, certificate: &Certificate) -> bool {
        let Some(scope) = &self.scope else {
            return true;
        };
        let of_other_kind = match certificate.claims_authority() {
            true => scope.only_contains_user_certs,
            false => scope.only_contains_ca_certs,
        };
        if scope.only_contains_attribute_certs || of_other_kind {
            return false;
        }
        let Some(own) = &scope.distribution_point else {
            return true;
        };
        let points = certificate.extension::<CrlDistributionPoints>();
        let points = points
            .ok()
            .flatten()
            .map_or_else(Vec::new, |points| points.0);
        // A list for some reasons only leaves the others open.
        let mut points = points
            .iter()
            .filter(|point| point.crl_issuer.is_none() && point.reasons.is_none());
        points.any(|point| {
            let point = point.distribution_point.as_ref();
            point.is_none_or(|point| share_a_name(point, own))
        })
    }

    fn has_unhandled_critical_extension(&self) -> bool {
        let handled = [ISSUING_DISTRIBUTION_POINT, AUTHORITY_KEY_IDENTIFIER, DELTA];
        let mut own = self.extensions.iter();
        let mut of_entries = self
            .revoked
            .iter()
            .flat_map(|revoked| revoked.crl_entry_extensions.iter().flatten());
        own.any(|it| it.critical && !handled.contains(&id(it).as_str()))
            || of_entries.any(|it| it.critical && id(it) != CERTIFICATE_ISSUER)
    }

    fn judge_time(&self, now: UnixTime) -> Result<(), &'static str> {
        if now.as_secs() < secs(&self.this_update) {
            return Err("CRL is not yet valid");
        }
        let next = self.next_update.as_ref();
        // As of a certificate, its last second does not count.
        if next.is_some_and(|next| now.as_secs() >= secs(next)) {
            return Err("CRL has expired");
        }
        Ok(())
    }

    fn revokes(&self, certificate: &Certificate) -> bool {
        let serial = &certificate.parsed().tbs_certificate.serial_number;
        let mut named = self.revoked.iter().filter(|it| &it.serial_number == serial);
        named.any(|named| {
            let extensions = named.crl_entry_extensions.as_deref().unwrap_or_default();
            let reason = decoded::<CrlReason>(extensions, REASON).ok().flatten();
            reason != Some(CrlReason::RemoveFromCRL)
        })
    }
}

/// Whether `certificate`, which `issuer` signed, is revoked by the best of `lists`.
///
/// # Errors
/// In OpenSSL's words, when it is, and when no list that can be relied on says that it is not.
pub(super) fn judge_revocation(
    certificate: &Certificate,
    issuer: &Certificate,
    lists: &[RevocationList],
    algorithms: Algorithms,
    now: UnixTime,
) -> Result<(), &'static str> {
    let of_issuer = || lists.iter().filter(move |list| list.is_of(issuer));
    // In OpenSSL's order, among equal ones the newest. Reversed: of two that are the same even then, the first counts.
    let complete = of_issuer().rev().filter(|list| !list.is_delta());
    let best = complete.max_by_key(|list| {
        (
            !list.has_unhandled_critical_extension(),
            list.covers(certificate),
            list.judge_time(now).is_ok(),
            secs(&list.this_update),
        )
    });
    let list = best.ok_or(NO_LIST)?;
    if !issuer.may_sign_revocations() {
        return Err("key usage does not include CRL signing");
    }
    if !list.covers(certificate) {
        return Err("different CRL scope");
    }
    list.judge_time(now)?;
    if !list.is_signed_by(issuer, algorithms) {
        return Err("CRL signature failure");
    }
    if list.has_unhandled_critical_extension() {
        return Err("unhandled critical CRL extension");
    }
    // OpenSSL takes a newer delta for the list. Here it can only revoke more.
    let mut deltas = of_issuer().filter(|list| list.is_delta());
    let is_revoked = list.revokes(certificate)
        || deltas.any(|it| it.revokes(certificate) && it.is_signed_by(issuer, algorithms));
    if is_revoked {
        return Err("certificate revoked");
    }
    Ok(())
}

fn secs(time: &Time) -> u64 {
    time.to_unix_duration().as_secs()
}

fn id(extension: &Extension) -> String {
    extension.extn_id.to_string()
}

/// The extension `wanted`, by its number: `x509_cert` has a wrong one for the issuing distribution point.
fn decoded<'a, T: Decode<'a>>(
    extensions: &'a [Extension],
    wanted: &str,
) -> x509_cert::der::Result<Option<T>> {
    let found = extensions.iter().find(|extension| id(extension) == wanted);
    found
        .map(|found| T::from_der(found.extn_value.as_bytes()))
        .transpose()
}

fn share_a_name(one: &DistributionPointName, other: &DistributionPointName) -> bool {
    let full = |name: &DistributionPointName| -> GeneralNames {
        match name {
            DistributionPointName::FullName(names) => names.clone(),
            DistributionPointName::NameRelativeToCRLIssuer(_) => Vec::new(),
        }
    };
    let other_names = full(other);
    one == other || full(one).iter().any(|name| other_names.contains(name))
}
