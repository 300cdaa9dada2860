//! Line numbers of a text.

/// The line of the byte at `offset`, counted from 1.
pub fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
}
