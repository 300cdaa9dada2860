//! A connection string of the form `keyword=value`. Pure.

use super::WaitError;

/// As `conninfo_parse`; `set` takes each keyword with its value.
pub(super) fn parse_keywords(
    text: &str,
    mut set: impl FnMut(&str, String) -> Result<(), WaitError>,
) -> Result<(), WaitError> {
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = rest.find(|c| c == '=' || is_space(c)).unwrap_or(rest.len());
        let keyword = &rest[..end];
        let after = rest[end..].trim_start_matches(is_space);
        let after = after
            .strip_prefix('=')
            .ok_or_else(|| wrong("a keyword is without \"=\""))?;
        let (value, after) = take_value(after.trim_start_matches(is_space))?;
        set(keyword, value)?;
        rest = after.trim_start_matches(is_space);
    }
    Ok(())
}

fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

/// A value in quotes, or one up to the next blank; a backslash takes the next character as it is.
fn take_value(text: &str) -> Result<(String, &str), WaitError> {
    let (inner, quoted) = match text.strip_prefix('\'') {
        Some(inner) => (inner, true),
        None => (text, false),
    };
    let mut value = String::new();
    let mut characters = inner.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, character)| character)),
            '\'' if quoted => return Ok((value, &inner[at + 1..])),
            _ if !quoted && is_space(character) => return Ok((value, &inner[at..])),
            _ => value.push(character),
        }
    }
    if quoted {
        return Err(wrong("a quoted value is not closed"));
    }
    Ok((value, ""))
}

fn wrong(what: &str) -> WaitError {
    WaitError::Url(what.to_owned())
}
