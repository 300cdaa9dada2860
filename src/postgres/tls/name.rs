//! Distinguished names as OpenSSL compares them (`x509_name_canon`). Pure.

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Encode, Tag, Tagged};
use x509_cert::name::Name;

/// The parts of `name`, each in a form that is the same for names that OpenSSL takes for equal.
///
/// The encoding of a text, its case and its blanks do not count, nor does the order of a part's attributes.
pub(super) fn canonical(name: &Name) -> Vec<Vec<u8>> {
    let parts = name.0.iter();
    parts
        .map(|part| {
            let mut attributes: Vec<_> = part.0.iter().map(canonical_attribute).collect();
            attributes.sort_unstable();
            attributes.concat()
        })
        .collect()
}

fn canonical_attribute(attribute: &AttributeTypeAndValue) -> Vec<u8> {
    let (kind, value) = match text(attribute) {
        Some(text) => {
            let words = text.split(is_blank).filter(|word| !word.is_empty());
            let words = words.collect::<Vec<_>>().join(" ").to_ascii_lowercase();
            (b't', words.into_bytes())
        }
        None => (b'o', attribute.value.to_der().unwrap_or_default()),
    };
    // Each with its length, so that no two lists of attributes look the same.
    let mut bytes = vec![kind];
    for part in [attribute.oid.as_bytes(), &value] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part);
    }
    bytes
}

/// `ossl_isspace`.
fn is_blank(character: char) -> bool {
    character.is_ascii_whitespace() || character == '\x0b'
}

/// The attributes of `name` with the type `wanted`.
pub(super) fn attributes(
    name: &Name,
    wanted: ObjectIdentifier,
) -> impl Iterator<Item = &AttributeTypeAndValue> {
    let attributes = name.0.iter().flat_map(|part| part.0.iter());
    attributes.filter(move |attribute| attribute.oid == wanted)
}

/// The text of an attribute; `None` where it is no text, or cannot be read.
pub(super) fn text(attribute: &AttributeTypeAndValue) -> Option<String> {
    let bytes = attribute.value.value();
    match attribute.value.tag() {
        // Two bytes a character.
        Tag::BmpString => {
            let units = bytes.chunks(2);
            let units = units.map(|pair| Some(u16::from_be_bytes(pair.try_into().ok()?)));
            String::from_utf16(&units.collect::<Option<Vec<_>>>()?).ok()
        }
        // OpenSSL takes its bytes for Latin 1.
        Tag::TeletexString => Some(bytes.iter().copied().map(char::from).collect()),
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::VisibleString => {
            std::str::from_utf8(bytes).ok().map(str::to_owned)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;

    #[test]
    fn case_blanks_and_the_order_of_attributes_do_not_tell_names_apart() {
        for (one, other, same) in [
            ("CN=Root CA", "CN=root  ca", true),
            ("CN=ca", "CN=cb", false),
            ("CN=ca", "O=ca", false),
            ("CN=ca,O=x", "CN=ca", false),
            ("CN=ca+O=x", "CN=ca,O=x", false),
            ("CN=ca+O=x", "O=X+CN=CA", true),
            ("CN=ca\u{b}b", "CN=ca b", true),
        ] {
            let canonical = |text| canonical(&Name::from_str(text).unwrap());
            assert_eq!(canonical(one) == canonical(other), same, "{one} {other}");
        }
    }
}
