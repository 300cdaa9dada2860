//! What is printed on standard output.

use std::io::{ErrorKind, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use jiff::Timestamp;

use crate::log;
use crate::restore::Step;

/// A table without lines; the columns of `right` are numbers.
pub fn table(
    header: &[&str],
    right: &[usize],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for column in right {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// As "3 min ago": one number is enough to judge an age by.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let secs = now.duration_since(at).as_secs().max(0);
    let (number, unit) = match secs {
        0..=119 => (secs, "s"),
        120..=7199 => (secs / 60, "min"),
        7200..=172_799 => (secs / 3600, "h"),
        _ => (secs / 86_400, "days"),
    };
    format!("{number} {unit} ago")
}

/// Tells on standard error that a step of a long work is done; a closed one must not end the work.
pub fn show_step(step: &Step) {
    log::to_stderr(&format!("{step}\n"));
}

/// Prints `text` as a line. A reader that stops reading (`xdb … | head`) is no error.
pub fn say(text: impl std::fmt::Display) -> std::io::Result<()> {
    let text = text.to_string();
    match writeln!(std::io::stdout(), "{}", log::printable(&text)) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_told_in_its_own_unit() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        for (secs, told) in [
            (-5, "0 s ago"),
            (119, "119 s ago"),
            (120, "2 min ago"),
            (7199, "119 min ago"),
            (7200, "2 h ago"),
            (172_800, "2 days ago"),
        ] {
            let at = Timestamp::from_second(1_000_000 - secs).unwrap();
            assert_eq!(ago(at, now), told);
        }
    }
}
