//! What is printed on standard output.

use std::io::{ErrorKind, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

use crate::log;
use crate::restore::Step;

/// A table without lines; the columns of `right` are numbers.
pub(crate) fn table(
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

/// Tells on standard error that a step of a long work is done; a closed one must not end the work.
pub(crate) fn show_step(step: &Step) {
    log::to_stderr(&format!("{step}\n"));
}

/// Prints `text` as a line. A reader that stops reading (`xdb … | head`) is no error.
pub(crate) fn say(text: impl std::fmt::Display) -> std::io::Result<()> {
    let text = text.to_string();
    match writeln!(std::io::stdout(), "{}", log::printable(&text)) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Prints each item as a line that begins with `what`.
pub(crate) fn say_each<T: std::fmt::Display>(what: &str, items: &[T]) -> std::io::Result<()> {
    let mut items = items.iter();
    items.try_for_each(|item| say(format_args!("{what}: {item}")))
}
