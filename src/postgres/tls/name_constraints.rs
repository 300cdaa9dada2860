//! For which names the authorities of a chain may issue certificates (OpenSSL's `v3_ncons.c`). Pure.
//!
//! `rustls` has rules of its own for them: it looks at no common name, and refuses certificates that OpenSSL takes.

use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Tag, Tagged};
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{NameConstraints, SubjectAltName};
use x509_cert::name::Name;

use super::certificate::Certificate;
use super::host_name::COMMON_NAME;
use super::name::{attributes, canonical, text};

const EMAIL_ADDRESS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.1");

/// `SmtpUTF8Mailbox`, an address for which OpenSSL knows constraints of addresses.
const MAILBOX: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.8.9");

const MALFORMED: &str = "invalid or inconsistent certificate extension";
const NAME_SYNTAX: &str = "unsupported or invalid name syntax";
const CONSTRAINT_TYPE: &str = "unsupported name constraint type";
const CONSTRAINT_SYNTAX: &str = "unsupported or invalid name constraint syntax";
const MINMAX: &str = "name constraints minimum and maximum not supported";
const NOT_PERMITTED: &str = "permitted subtree violation";
const EXCLUDED: &str = "excluded subtree violation";

/// Whether each certificate of `chain`, the server's first, has names that the authorities above it may give.
///
/// # Errors
/// In OpenSSL's words.
pub(super) fn judge_names(chain: &[&Certificate]) -> Result<(), &'static str> {
    for (index, certificate) in chain.iter().enumerate() {
        // One that an authority made for itself, while it changes its key.
        if index > 0 && certificate.is_self_issued() {
            continue;
        }
        for authority in chain[index + 1..].iter().rev() {
            let constraints = authority.name_constraints().map_err(|_| MALFORMED)?;
            if let Some(constraints) = constraints {
                judge_all_names(certificate, index == 0, &constraints)?;
            }
        }
    }
    Ok(())
}

/// `NAME_CONSTRAINTS_check`, and for the server's own certificate `NAME_CONSTRAINTS_check_CN`.
fn judge_all_names(
    certificate: &Certificate,
    is_servers: bool,
    constraints: &NameConstraints,
) -> Result<(), &'static str> {
    let subject = certificate.subject();
    if !subject.0.is_empty() {
        judge_name(&Presented::Directory(subject), constraints)?;
    }
    for address in attributes(subject, EMAIL_ADDRESS) {
        let is_text = address.value.tag() == Tag::Ia5String;
        let address = text(address).filter(|_| is_text).ok_or(NAME_SYNTAX)?;
        judge_name(&Presented::Email(&address), constraints)?;
    }
    let alternatives = certificate.extension::<SubjectAltName>();
    let alternatives = alternatives.map_err(|_| MALFORMED)?;
    let alternatives = alternatives.map_or_else(Vec::new, |alternatives| alternatives.0);
    for name in &alternatives {
        judge_name(&Presented::of(name), constraints)?;
    }
    let has_dns_name = alternatives
        .iter()
        .any(|name| matches!(name, GeneralName::DnsName(_)));
    if is_servers && !has_dns_name {
        for name in attributes(subject, COMMON_NAME) {
            if let Some(name) = host_name(&text(name).ok_or(NAME_SYNTAX)?)? {
                judge_name(&Presented::Dns(name), constraints)?;
            }
        }
    }
    Ok(())
}

/// A common name that looks like the name of a host (`cn2dnsid`): of at least two labels.
fn host_name(name: &str) -> Result<Option<&str>, &'static str> {
    let name = name.trim_end_matches('\0');
    if name.contains('\0') {
        return Err(NAME_SYNTAX);
    }
    let is_label = |label: &str| {
        let in_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        !label.is_empty()
            && label.bytes().all(in_label)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_host = name.contains('.') && name.split('.').all(is_label);
    Ok(is_host.then_some(name))
}

/// A name of a certificate, by the kind of constraint that is for it.
enum Presented<'a> {
    Directory(&'a Name),
    Dns(&'a str),
    Email(&'a str),
    Uri(&'a str),
    Address(&'a [u8]),
    Other(&'a GeneralName),
}

impl<'a> Presented<'a> {
    fn of(name: &'a GeneralName) -> Self {
        match name {
            GeneralName::DirectoryName(name) => Self::Directory(name),
            GeneralName::DnsName(name) => Self::Dns(name.as_str()),
            GeneralName::Rfc822Name(name) => Self::Email(name.as_str()),
            GeneralName::UniformResourceIdentifier(name) => Self::Uri(name.as_str()),
            GeneralName::IpAddress(bytes) => Self::Address(bytes.as_bytes()),
            other => Self::Other(other),
        }
    }

    /// Whether it lies in the subtree of `base`; `None` where that is for another kind of name.
    fn is_within(&self, base: &GeneralName) -> Option<Result<bool, &'static str>> {
        Some(match (self, base) {
            (Self::Directory(name), GeneralName::DirectoryName(base)) => {
                Ok(canonical(name).starts_with(&canonical(base)))
            }
            (Self::Dns(name), GeneralName::DnsName(base)) => {
                Ok(is_dns_name_within(name, base.as_str()))
            }
            (Self::Email(name), GeneralName::Rfc822Name(base)) => {
                is_email_within(name, base.as_str())
            }
            (Self::Uri(name), GeneralName::UniformResourceIdentifier(base)) => {
                is_uri_within(name, base.as_str())
            }
            (Self::Address(address), GeneralName::IpAddress(base)) => {
                is_address_within(address, base.as_bytes())
            }
            (Self::Other(GeneralName::OtherName(name)), GeneralName::Rfc822Name(_))
                if name.type_id == MAILBOX =>
            {
                Err(CONSTRAINT_TYPE)
            }
            (Self::Other(name), base)
                if std::mem::discriminant(*name) == std::mem::discriminant(base) =>
            {
                Err(CONSTRAINT_TYPE)
            }
            _ => return None,
        })
    }
}

/// `nc_match`: where there are permitted subtrees of a name's kind, one must hold it; no excluded one may.
fn judge_name(name: &Presented<'_>, constraints: &NameConstraints) -> Result<(), &'static str> {
    let (mut of_kind, mut permitted) = (false, false);
    for subtree in constraints.permitted_subtrees.iter().flatten() {
        let Some(within) = is_within(name, subtree)? else {
            continue;
        };
        of_kind = true;
        permitted |= within;
    }
    if of_kind && !permitted {
        return Err(NOT_PERMITTED);
    }
    for subtree in constraints.excluded_subtrees.iter().flatten() {
        if is_within(name, subtree)? == Some(true) {
            return Err(EXCLUDED);
        }
    }
    Ok(())
}

fn is_within(name: &Presented<'_>, subtree: &GeneralSubtree) -> Result<Option<bool>, &'static str> {
    let within = name.is_within(&subtree.base).transpose()?;
    match within {
        Some(_) if subtree.minimum != 0 || subtree.maximum.is_some() => Err(MINMAX),
        within => Ok(within),
    }
}

fn ends_with(name: &str, end: &str) -> bool {
    let start = name.len().checked_sub(end.len());
    start.is_some_and(|start| name.as_bytes()[start..].eq_ignore_ascii_case(end.as_bytes()))
}

/// `base` begins with a dot, and `name` has something before it.
fn is_below(name: &str, base: &str) -> bool {
    name.len() > base.len() && ends_with(name, base)
}

/// `nc_dns`: the base itself, or with further labels before it.
fn is_dns_name_within(name: &str, base: &str) -> bool {
    let extra = name.len().checked_sub(base.len());
    let at_label =
        |extra: usize| extra == 0 || base.starts_with('.') || name.as_bytes()[extra - 1] == b'.';
    base.is_empty() || (ends_with(name, base) && extra.is_some_and(at_label))
}

/// `nc_email`: a whole address, all of a host, or with a dot first all of a domain.
fn is_email_within(name: &str, base: &str) -> Result<bool, &'static str> {
    let (local, host) = name.rsplit_once('@').ok_or(NAME_SYNTAX)?;
    Ok(match base.rsplit_once('@') {
        None if base.starts_with('.') => is_below(name, base),
        None => host.eq_ignore_ascii_case(base),
        Some((wanted, base)) => {
            (wanted.is_empty() || wanted == local) && host.eq_ignore_ascii_case(base)
        }
    })
}

/// `nc_uri`: the host of the URI is the base, or with a dot first below it.
fn is_uri_within(uri: &str, base: &str) -> Result<bool, &'static str> {
    let (_, rest) = uri.split_once(':').ok_or(NAME_SYNTAX)?;
    let rest = rest.strip_prefix("//").ok_or(NAME_SYNTAX)?;
    let host = rest.split([':', '/']).next().unwrap_or_default();
    if host.is_empty() {
        return Err(NAME_SYNTAX);
    }
    Ok(match base.starts_with('.') {
        true => is_below(host, base),
        false => host.eq_ignore_ascii_case(base),
    })
}

/// `nc_ip`: an address, and a base of address and mask.
fn is_address_within(address: &[u8], base: &[u8]) -> Result<bool, &'static str> {
    if !matches!(address.len(), 4 | 16) {
        return Err(NAME_SYNTAX);
    }
    if !matches!(base.len(), 8 | 32) {
        return Err(CONSTRAINT_SYNTAX);
    }
    if address.len() * 2 != base.len() {
        return Ok(false);
    }
    let (network, mask) = base.split_at(address.len());
    Ok((0..address.len()).all(|index| (address[index] ^ network[index]) & mask[index] == 0))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use x509_cert::der::asn1::{Ia5String, OctetString};

    use super::*;

    /// As `dns:name`, `email:…`, `uri:…`, `dir:…`, or `ip:` with its bytes between dots.
    fn name(text: &str) -> GeneralName {
        let (kind, text) = text.split_once(':').unwrap();
        let ia5 = || Ia5String::new(text).unwrap();
        match kind {
            "dns" => GeneralName::DnsName(ia5()),
            "email" => GeneralName::Rfc822Name(ia5()),
            "uri" => GeneralName::UniformResourceIdentifier(ia5()),
            "dir" => GeneralName::DirectoryName(Name::from_str(text).unwrap()),
            "id" => GeneralName::RegisteredId(ObjectIdentifier::new(text).unwrap()),
            _ => {
                let bytes: Vec<u8> = text.split('.').map(|byte| byte.parse().unwrap()).collect();
                GeneralName::IpAddress(OctetString::new(bytes).unwrap())
            }
        }
    }

    fn subtrees(texts: &str) -> Option<Vec<GeneralSubtree>> {
        let subtree = |text| GeneralSubtree {
            base: name(text),
            minimum: 0,
            maximum: None,
        };
        (!texts.is_empty()).then(|| texts.split(' ').map(subtree).collect())
    }

    #[test]
    fn a_name_lies_in_a_permitted_subtree_and_in_no_excluded_one() {
        const IP: &str = "ip:10.0.0.0.255.0.0.0";
        for (presented, permitted, excluded, expected) in [
            ("dns:db.example.com", "", "", Ok(())),
            ("dns:db.example.com", "dns:example.com", "", Ok(())),
            ("dns:example.com", "dns:Example.COM", "", Ok(())),
            ("dns:db.example.com", "dns:.example.com", "", Ok(())),
            (
                "dns:example.com",
                "dns:.example.com",
                "",
                Err(NOT_PERMITTED),
            ),
            (
                "dns:badexample.com",
                "dns:example.com",
                "",
                Err(NOT_PERMITTED),
            ),
            (
                "dns:db.other.com",
                "dns:example.com",
                "",
                Err(NOT_PERMITTED),
            ),
            (
                "dns:db.other.com",
                "dns:example.com dns:other.com",
                "",
                Ok(()),
            ),
            ("dns:db.other.com", "dns:", "", Ok(())),
            ("dns:db.other.com", "", "dns:", Err(EXCLUDED)),
            (
                "dns:db.example.com",
                "dns:com",
                "dns:example.com",
                Err(EXCLUDED),
            ),
            ("dns:db", "", "dns:example.com", Ok(())),
            // Of another kind.
            ("dns:db.other.com", IP, "", Ok(())),
            ("ip:10.1.2.3", IP, "", Ok(())),
            ("ip:11.1.2.3", IP, "", Err(NOT_PERMITTED)),
            ("ip:10.1.2.3", "", IP, Err(EXCLUDED)),
            ("ip:10.1.2.3", "ip:10.0.0.0", "", Err(CONSTRAINT_SYNTAX)),
            ("ip:10.1", IP, "", Err(NAME_SYNTAX)),
            ("email:a@example.com", "email:example.com", "", Ok(())),
            (
                "email:a@example.com",
                "email:b@example.com",
                "",
                Err(NOT_PERMITTED),
            ),
            ("email:a@db.example.com", "email:.example.com", "", Ok(())),
            ("email:a", "email:example.com", "", Err(NAME_SYNTAX)),
            (
                "uri:https://example.com:80/x",
                "uri:example.com",
                "",
                Ok(()),
            ),
            (
                "uri:https://db.example.com",
                "uri:example.com",
                "",
                Err(NOT_PERMITTED),
            ),
            ("uri:https://db.example.com", "uri:.example.com", "", Ok(())),
            ("uri:mailto:x", "uri:example.com", "", Err(NAME_SYNTAX)),
            ("dir:CN=db,O=Shop", "dir:O=shop", "", Ok(())),
            ("dir:CN=db,O=Other", "dir:O=Shop", "", Err(NOT_PERMITTED)),
            ("dir:CN=db,O=Shop", "", "dir:O=Shop", Err(EXCLUDED)),
            ("id:1.2.3", "id:1.2.3", "", Err(CONSTRAINT_TYPE)),
        ] {
            let constraints = NameConstraints {
                permitted_subtrees: subtrees(permitted),
                excluded_subtrees: subtrees(excluded),
            };
            let judged = judge_name(&Presented::of(&name(presented)), &constraints);
            assert_eq!(judged, expected, "{presented}: {permitted}, not {excluded}");
        }
    }

    #[test]
    fn a_subtree_with_a_depth_is_refused() {
        let mut deep = subtrees("dns:com");
        deep.iter_mut()
            .flatten()
            .for_each(|deep| deep.maximum = Some(1));
        let constraints = NameConstraints {
            permitted_subtrees: deep,
            excluded_subtrees: None,
        };
        let presented = name("dns:example.com");
        assert_eq!(
            judge_name(&Presented::of(&presented), &constraints),
            Err(MINMAX)
        );
    }

    #[test]
    fn a_common_name_counts_where_it_looks_like_a_host() {
        for (name, expected) in [
            ("db.example.com", Ok(Some("db.example.com"))),
            ("db_1.ex-ample.com\0", Ok(Some("db_1.ex-ample.com"))),
            ("10.0.0.1", Ok(Some("10.0.0.1"))),
            ("database", Ok(None)),
            ("*.example.com", Ok(None)),
            ("My Company, Inc.", Ok(None)),
            ("db-.example.com", Ok(None)),
            ("db..com", Ok(None)),
            (".com", Ok(None)),
            ("com.", Ok(None)),
            ("", Ok(None)),
            ("db\0.example.com", Err(NAME_SYNTAX)),
        ] {
            assert_eq!(host_name(name), expected, "{name:?}");
        }
    }
}
