//! Whether a certificate is one for a host, by libpq's rules (`fe-secure-common.c`, `fe-secure-openssl.c`). Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::certificate::Certificate;
use super::name::attributes;

pub(super) const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// A name in a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Dns(String),
    Address(IpAddr),
}

/// Judges the subject alternative names and the common name of `certificate`.
///
/// # Errors
/// In libpq's words.
pub(super) fn judge_host(certificate: &Certificate, host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("host name must be specified for a verified SSL connection".to_owned());
    }
    let parsed = &certificate.parsed().tbs_certificate;
    let alternatives = parsed
        .get::<SubjectAltName>()
        .map_err(|error| error.to_string())?;
    let alternatives = alternatives.into_iter().flat_map(|(_, it)| it.0);
    let alternatives = alternatives.filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(Ok(Name::Dns(name.to_string()))),
        GeneralName::IpAddress(bytes) => Some(address(bytes.as_bytes()).map(Name::Address)),
        _ => None,
    });
    let alternatives = alternatives.collect::<Result<Vec<_>, _>>()?;
    judge(&alternatives, common_name(certificate).as_deref(), host)
}

/// Without an alternative name of the host's own kind, the common name counts too.
fn judge(alternatives: &[Name], common_name: Option<&str>, host: &str) -> Result<(), String> {
    let wanted = host.parse::<IpAddr>().ok();
    let matches = |name: &Name| match name {
        Name::Dns(name) => fits(name, host),
        Name::Address(address) => wanted == Some(*address),
    };
    let has_null = |name: &Name| matches!(name, Name::Dns(name) if name.contains('\0'));
    if alternatives.iter().any(has_null) {
        return Err("SSL certificate's name contains embedded null".to_owned());
    }
    let same_kind = |name: &&Name| matches!(name, Name::Address(_)) == wanted.is_some();
    let common_name = match alternatives.iter().find(same_kind) {
        Some(_) => None,
        None => common_name,
    };
    if alternatives.iter().any(matches) || common_name.is_some_and(|name| fits(name, host)) {
        return Ok(());
    }
    let first = alternatives.first().map(|name| match name {
        Name::Dns(name) => name.clone(),
        Name::Address(address) => address.to_string(),
    });
    Err(match first.as_deref().or(common_name) {
        Some(name) => {
            format!("server certificate for {name:?} does not match host name {host:?}")
        }
        None => "could not get server's host name from server certificate".to_owned(),
    })
}

/// The same name, or a wildcard in place of the host's first label.
fn fits(name: &str, host: &str) -> bool {
    if name.contains('\0') {
        return false;
    }
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    // A star, a dot, and at least one character.
    let Some(domain) = name
        .strip_prefix('*')
        .filter(|rest| rest.starts_with('.') && rest.len() > 1)
    else {
        return false;
    };
    let Some((label, rest)) = host.split_once('.') else {
        return false;
    };
    !label.is_empty() && domain[1..].eq_ignore_ascii_case(rest)
}

fn address(bytes: &[u8]) -> Result<IpAddr, String> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Ok(Ipv4Addr::from(bytes).into());
    }
    match <[u8; 16]>::try_from(bytes) {
        Ok(bytes) => Ok(Ipv6Addr::from(bytes).into()),
        Err(_) => Err(format!(
            "certificate contains IP address with invalid length {}",
            bytes.len()
        )),
    }
}

/// The first of the subject's common names: libpq takes its bytes as they are, however they are encoded.
fn common_name(certificate: &Certificate) -> Option<String> {
    let name = attributes(certificate.subject(), COMMON_NAME).next()?;
    let text = std::str::from_utf8(name.value.value()).ok()?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_judged_as_libpq_does() {
        for (alternatives, common_name, host, good) in [
            ("", "database", "database", true),
            ("", "DataBase", "database", true),
            ("", "database", "other", false),
            ("dns:database", "other", "other", false),
            ("dns:database", "other", "database", true),
            ("dns:*.example.com", "", "db.example.com", true),
            ("dns:*.example.com", "", "DB.Example.com", true),
            ("dns:*.example.com", "", "example.com", false),
            ("dns:*.example.com", "", "a.db.example.com", false),
            ("", "*.example.com", "db.example.com", true),
            ("dns:d*.example.com", "", "db.example.com", false),
            ("dns:*", "", "database", false),
            ("dns:*.", "", "database.", false),
            ("ip:10.0.2.30", "", "10.0.2.30", true),
            ("ip:10.0.2.30", "", "10.0.2.31", false),
            ("ip:10.0.2.30", "10.0.2.31", "10.0.2.31", false),
            ("ip:10.0.2.30", "database", "database", true),
            ("ip:::1", "", "::1", true),
            ("ip:::1", "", "0:0:0:0:0:0:0:1", true),
            ("", "10.0.2.30", "10.0.2.30", true),
            ("dns:10.0.2.30", "", "10.0.2.30", true),
            ("dns:database", "10.0.2.30", "10.0.2.30", true),
            ("", "", "database", false),
            ("", "data\0base", "data", false),
            ("dns:data\0base,dns:database", "", "database", false),
        ] {
            let parsed: Vec<Name> = alternatives
                .split_terminator(',')
                .map(|name| match name.split_once(':') {
                    Some(("ip", address)) => Name::Address(address.parse().unwrap()),
                    Some((_, name)) => Name::Dns(name.to_owned()),
                    None => panic!("{name}"),
                })
                .collect();
            let common_name = Some(common_name).filter(|name| !name.is_empty());
            let judged = judge(&parsed, common_name, host);
            assert_eq!(
                judged.is_ok(),
                good,
                "{alternatives} {common_name:?} {host}: {judged:?}"
            );
        }
    }
}
