//! Distinguished names as OpenSSL compares them (`x509_name_canon`). Pure.

use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::der::{Encode, Tag, Tagged};
use x509_cert::name::Name;

/// The parts of `name`, each in a form that is the same for names that OpenSSL takes for equal.
///
/// How a text is encoded, its case and its blanks do not count.
pub(super) fn canonical(name: &Name) -> Vec<Vec<u8>> {
    let parts = name.0.iter();
    parts
        .map(|part| part.0.iter().flat_map(canonical_attribute).collect())
        .collect()
}

fn canonical_attribute(attribute: &AttributeTypeAndValue) -> Vec<u8> {
    let value = match text(attribute) {
        Some(text) => {
            let words: Vec<&str> = text.split_ascii_whitespace().collect();
            words.join(" ").to_ascii_lowercase().into_bytes()
        }
        None => attribute.value.to_der().unwrap_or_default(),
    };
    // With its length, so that no two lists of attributes look the same.
    let mut bytes = attribute.oid.as_bytes().to_vec();
    bytes.extend((value.len() as u64).to_be_bytes());
    bytes.extend(value);
    bytes
}

/// The text of an attribute; `None` where it is none, or cannot be read.
pub(super) fn text(attribute: &AttributeTypeAndValue) -> Option<String> {
    let bytes = attribute.value.value();
    match attribute.value.tag() {
        // Two bytes a character.
        Tag::BmpString => {
            let units = bytes.chunks_exact(2);
            let units = units.map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            String::from_utf16(&units.collect::<Vec<_>>()).ok()
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
    fn case_and_blanks_do_not_tell_names_apart() {
        for (one, other, same) in [
            ("CN=Root CA", "CN=root  ca", true),
            ("CN=ca", "CN=cb", false),
            ("CN=ca", "O=ca", false),
            ("CN=ca,O=x", "CN=ca", false),
            ("CN=ca+O=x", "CN=ca,O=x", false),
        ] {
            let canonical = |text| canonical(&Name::from_str(text).unwrap());
            assert_eq!(canonical(one) == canonical(other), same, "{one} {other}");
        }
    }
}
