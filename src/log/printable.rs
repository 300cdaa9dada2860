//! Text for terminals and logs: names and messages from outside must not steer the terminal of the reader.

use std::borrow::Cow;
use std::io::{self, Write};

/// `text` with each control character as an escape, line breaks and tabs aside: a database may be named `\e]0;…`.
///
/// The escapes are JSON's, so JSON stays JSON. What reverses the direction of writing is escaped too.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, steers)
}

fn escaped(text: &str, is_unsafe: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_unsafe(character) {
            safe.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

fn steers(character: char) -> bool {
    (character.is_control() && !matches!(character, '\n' | '\t'))
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes `text` to standard error, printable. What cannot be written is left out: its reader may be gone.
pub(crate) fn to_stderr(text: &str) {
    let _ = io::stderr().write_all(printable(text).as_bytes());
}

/// A writer for tracing's text, which colours it: escapes that come from values are escaped by tracing itself.
pub(super) struct Coloured<W>(pub(super) W);

impl<W: Write> Write for Coloured<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let safe = escaped(&text, |character| character != '\x1b' && steers(character));
        self.0.write_all(safe.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_become_escapes() {
        for (text, safe) in [
            ("app", "app"),
            ("größe\tx\n", "größe\tx\n"),
            ("a\x1b]0;b\x07", "a\\u001b]0;b\\u0007"),
            ("a\rb\0c\x7f", "a\\u000db\\u0000c\\u007f"),
            ("\u{9b}31m", "\\u009b31m"),
            ("a\u{202e}b", "a\\u202eb"),
        ] {
            assert_eq!(printable(text), safe, "{text:?}");
        }
        let json = serde_json::to_string("\u{9b}\x1b").unwrap();
        let read: String = serde_json::from_str(&printable(&json)).unwrap();
        assert_eq!(read, "\u{9b}\x1b");
    }

    #[test]
    fn colours_of_tracing_pass_and_nothing_else() {
        let mut written = Vec::new();
        Coloured(&mut written).write_all(b"\x1b[31ma\rb\n").unwrap();
        assert_eq!(written, b"\x1b[31ma\\u000db\n");
    }
}
