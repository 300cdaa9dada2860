//! One X.509 certificate, as OpenSSL reads it: of any version, and with any extensions. Pure.

use rustls::pki_types::{SignatureVerificationAlgorithm, UnixTime};
use x509_cert::Certificate as Parsed;
use x509_cert::der::asn1::{BitString, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints,
    SubjectKeyIdentifier,
};
use x509_cert::name::Name;
use x509_cert::spki::AlgorithmIdentifierOwned;
use x509_cert::time::Time;

use super::name::canonical;

pub(super) type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

/// Extensions that OpenSSL handles, so that a critical one is no reason to refuse (`X509_supported_extension`).
const HANDLED: &[&str] = &[
    NETSCAPE_TYPE,
    "2.5.29.14", // subject key identifier
    "2.5.29.15", // key usage
    "2.5.29.17", // subject alternative name
    "2.5.29.19", // basic constraints
    "2.5.29.30", // name constraints
    "2.5.29.31", // CRL distribution points
    "2.5.29.32", // certificate policies
    "2.5.29.33", // policy mappings
    "2.5.29.35", // authority key identifier
    "2.5.29.36", // policy constraints
    "2.5.29.37", // extended key usage
    "2.5.29.54", // inhibit any policy
];
const NETSCAPE_TYPE: &str = "2.16.840.1.113730.1.1";
/// In the first byte of that extension: the certificate is for a TLS server.
const NETSCAPE_SERVER: u8 = 0x40;
/// Of RFC 3820: the certificate of a proxy, which the holder of another certificate issued.
const PROXY: &str = "1.3.6.1.5.5.7.1.14";
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");

/// A certificate, and the bytes that its signature covers.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    der: Vec<u8>,
    signed: Vec<u8>,
    parsed: Parsed,
    /// Names as OpenSSL compares them.
    subject: Vec<Vec<u8>>,
    issuer: Vec<Vec<u8>>,
}

impl Certificate {
    /// # Errors
    /// In words, when `der` is no certificate.
    pub(super) fn parse(der: &[u8]) -> Result<Self, String> {
        let wrong = |error: x509_cert::der::Error| error.to_string();
        let parsed = Parsed::from_der(der).map_err(wrong)?;
        Ok(Self {
            der: der.to_vec(),
            signed: signed_part(der).map_err(wrong)?,
            subject: canonical(&parsed.tbs_certificate.subject),
            issuer: canonical(&parsed.tbs_certificate.issuer),
            parsed,
        })
    }

    pub(super) fn parsed(&self) -> &Parsed {
        &self.parsed
    }

    pub(super) fn subject(&self) -> &Name {
        &self.parsed.tbs_certificate.subject
    }

    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.der == other.der
    }

    /// The same name on both sides.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether `name` is its subject.
    pub(super) fn is_called(&self, name: &Name) -> bool {
        self.subject == canonical(name)
    }

    /// As OpenSSL's `EXFLAG_SS`.
    pub(super) fn is_self_signed(&self) -> bool {
        self.is_self_issued() && self.key_identifiers_agree(self)
    }

    /// Whether `issuer` may have signed this certificate, by names and key identifiers.
    pub(super) fn may_come_from(&self, issuer: &Self) -> bool {
        let may_sign = match issuer.extension::<KeyUsage>() {
            Ok(usage) => usage.is_none_or(|usage| usage.key_cert_sign()),
            Err(_) => false,
        };
        self.issuer == issuer.subject && self.key_identifiers_agree(issuer) && may_sign
    }

    /// An identifier that cannot be read agrees with none, as for OpenSSL 3.
    fn key_identifiers_agree(&self, issuer: &Self) -> bool {
        match self.extension::<AuthorityKeyIdentifier>() {
            Ok(authority) => authority.is_none_or(|it| issuer.is_identified_by(&it)),
            Err(_) => false,
        }
    }

    /// As `X509_check_akid`: a field that one side lacks is no contradiction.
    pub(super) fn is_identified_by(&self, authority: &AuthorityKeyIdentifier) -> bool {
        let Ok(own) = self.extension::<SubjectKeyIdentifier>() else {
            return false;
        };
        if let (Some(wanted), Some(own)) = (&authority.key_identifier, own)
            && *wanted != own.0
        {
            return false;
        }
        let serial = &self.parsed.tbs_certificate.serial_number;
        if let Some(wanted) = &authority.authority_cert_serial_number
            && wanted != serial
        {
            return false;
        }
        let names = authority.authority_cert_issuer.iter().flatten();
        let mut names = names.filter_map(|name| match name {
            GeneralName::DirectoryName(name) => Some(canonical(name)),
            _ => None,
        });
        names.next().is_none_or(|name| name == self.issuer)
    }

    /// The algorithm stands inside and outside of what is signed, and must be the same (`X509_verify`).
    pub(super) fn is_signed_by(&self, issuer: &Self, algorithms: Algorithms) -> bool {
        let signature = self.parsed.signature.as_bytes();
        let id = &self.parsed.signature_algorithm;
        self.parsed.tbs_certificate.signature == *id
            && issuer.has_signed(&self.signed, id, signature, algorithms)
    }

    /// Whether this certificate's key made `signature`, in the way that `id` names, over `message`.
    pub(super) fn has_signed(
        &self,
        message: &[u8],
        id: &AlgorithmIdentifierOwned,
        signature: Option<&[u8]>,
        algorithms: Algorithms,
    ) -> bool {
        let (Some(id), Some(signature)) = (identifier(id), signature) else {
            return false;
        };
        let named = algorithms
            .iter()
            .filter(|algorithm| algorithm.signature_alg_id().as_ref() == id);
        self.verifies_by_any(named.copied(), message, signature)
    }

    /// Whether this certificate's key made `signature` over `message` by one of `algorithms`.
    pub(super) fn verifies_by_any(
        &self,
        algorithms: impl Iterator<Item = &'static dyn SignatureVerificationAlgorithm>,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        let key = &self.parsed.tbs_certificate.subject_public_key_info;
        let (Some(kind), Some(bits)) = (
            identifier(&key.algorithm),
            key.subject_public_key.as_bytes(),
        ) else {
            return false;
        };
        let mut fitting =
            algorithms.filter(|algorithm| algorithm.public_key_alg_id().as_ref() == kind);
        fitting.any(|algorithm| {
            let verified = algorithm.verify_signature(bits, message, signature);
            verified.is_ok()
        })
    }

    /// The public key as TLS 1.3 takes it.
    pub(super) fn public_key(&self) -> Option<Vec<u8>> {
        let key = &self.parsed.tbs_certificate.subject_public_key_info;
        key.to_der().ok()
    }

    /// # Errors
    /// In OpenSSL's words, when `now` is outside of the certificate's validity, whose last second does not count.
    pub(super) fn judge_time(&self, now: UnixTime) -> Result<(), &'static str> {
        let validity = &self.parsed.tbs_certificate.validity;
        let secs = |time: &Time| time.to_unix_duration().as_secs();
        if now.as_secs() < secs(&validity.not_before) {
            return Err("certificate is not yet valid");
        }
        if now.as_secs() >= secs(&validity.not_after) {
            return Err("certificate has expired");
        }
        Ok(())
    }

    /// Whether it may issue certificates (`X509_check_ca`): a root may without saying so, an intermediate may not.
    pub(super) fn is_authority(&self, is_root: bool) -> bool {
        let (Ok(constraints), Ok(usage)) = (
            self.extension::<BasicConstraints>(),
            self.extension::<KeyUsage>(),
        ) else {
            return false;
        };
        if usage.is_some_and(|usage| !usage.key_cert_sign()) {
            return false;
        }
        match constraints {
            Some(constraints) => constraints.ca,
            None if is_root => usage.is_some() || (self.is_version_1() && self.is_self_signed()),
            None => false,
        }
    }

    /// Whether it says that it may issue certificates (`EXFLAG_CA`).
    pub(super) fn claims_authority(&self) -> bool {
        let constraints = self.extension::<BasicConstraints>().ok().flatten();
        constraints.is_some_and(|constraints| constraints.ca)
    }

    /// Whether its own key may sign revocation lists.
    pub(super) fn may_sign_revocations(&self) -> bool {
        match self.extension::<KeyUsage>() {
            Ok(usage) => usage.is_none_or(|usage| usage.crl_sign()),
            Err(_) => false,
        }
    }

    fn is_version_1(&self) -> bool {
        self.parsed.tbs_certificate.version == x509_cert::Version::V1
    }

    /// How many authorities may stand between it and the server's certificate.
    pub(super) fn path_length(&self) -> Option<u8> {
        let constraints = self.extension::<BasicConstraints>().ok().flatten();
        constraints.and_then(|constraints| constraints.path_len_constraint)
    }

    /// Whether it may stand in a chain to a TLS server (`check_purpose_ssl_server`).
    pub(super) fn serves_servers(&self) -> bool {
        match self.extension::<ExtendedKeyUsage>() {
            Ok(usage) => usage.is_none_or(|usage| usage.0.contains(&SERVER_AUTH)),
            Err(_) => false,
        }
    }

    /// Whether its own key may be a TLS server's.
    pub(super) fn has_servers_key_usage(&self) -> bool {
        match self.extension::<KeyUsage>() {
            Ok(usage) => usage.is_none_or(|usage| {
                usage.digital_signature() || usage.key_encipherment() || usage.key_agreement()
            }),
            Err(_) => false,
        }
    }

    /// Whether Netscape's type, which few certificates have, allows a TLS server's certificate (`ns_reject`).
    pub(super) fn has_servers_netscape_type(&self) -> bool {
        self.value_of(NETSCAPE_TYPE).is_none_or(|value| {
            let bits = BitString::from_der(value).ok();
            let first = bits.and_then(|bits| bits.raw_bytes().first().copied());
            first.is_some_and(|byte| byte & NETSCAPE_SERVER != 0)
        })
    }

    pub(super) fn is_of_proxy(&self) -> bool {
        self.value_of(PROXY).is_some()
    }

    /// The bytes of the extension with the number `id`.
    fn value_of(&self, id: &str) -> Option<&[u8]> {
        let mut extensions = self.parsed.tbs_certificate.extensions.iter().flatten();
        let found = extensions.find(|extension| extension.extn_id.to_string() == id);
        found.map(|extension| extension.extn_value.as_bytes())
    }

    /// For which names it may issue certificates.
    ///
    /// # Errors
    /// When the extension cannot be read.
    pub(super) fn name_constraints(&self) -> x509_cert::der::Result<Option<NameConstraints>> {
        self.extension()
    }

    pub(super) fn has_unhandled_critical_extension(&self) -> bool {
        let mut extensions = self.parsed.tbs_certificate.extensions.iter().flatten();
        extensions.any(|it| it.critical && !HANDLED.contains(&it.extn_id.to_string().as_str()))
    }

    pub(super) fn extension<'a, T>(&'a self) -> x509_cert::der::Result<Option<T>>
    where
        T: Decode<'a> + x509_cert::der::oid::AssociatedOid,
    {
        let found = self.parsed.tbs_certificate.get::<T>()?;
        Ok(found.map(|(_, extension)| extension))
    }
}

/// The first of the three parts of a signed structure.
pub(super) fn signed_part(der: &[u8]) -> x509_cert::der::Result<Vec<u8>> {
    let mut reader = SliceReader::new(der)?;
    reader.sequence(|parts| {
        let signed = parts.tlv_bytes()?.to_vec();
        parts.tlv_bytes()?;
        parts.tlv_bytes()?;
        Ok(signed)
    })
}

/// An algorithm's identifier as `rustls` compares it: without the outer header.
fn identifier(id: &AlgorithmIdentifierOwned) -> Option<Vec<u8>> {
    let mut bytes = id.oid.to_der().ok()?;
    if let Some(parameters) = &id.parameters {
        bytes.extend(parameters.to_der().ok()?);
    }
    Some(bytes)
}
