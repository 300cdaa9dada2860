//! Prints something again and again: in place on a terminal, one after the other elsewhere.

use std::io::{ErrorKind, IsTerminal, Write, stdout};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::exit::Exit;
use crate::log;

/// Prints what `look` returns, with the time of that look before it, until the process is interrupted, or until a reader
/// closes the pipe. Between two looks it waits for `every`.
///
/// # Errors
/// When standard output cannot be written.
pub(super) async fn repeat(
    every: Duration,
    look: impl AsyncFn() -> Vec<String>,
) -> anyhow::Result<Exit> {
    loop {
        let lines = look().await;
        let header = header(Timestamp::now(), every);
        let lines: Vec<String> = [header]
            .iter()
            .chain(&lines)
            .map(|line| log::printable(line).to_string())
            .collect();
        let text = match terminal() {
            Some(size) => in_place(&lines, size),
            None => format!("{}\n\n", lines.join("\n")),
        };
        let mut out = stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(Exit::Good),
            written => written?,
        }
        drop(out);
        sleep(every).await;
    }
}

/// A look that hangs shows by its time.
fn header(at: Timestamp, every: Duration) -> String {
    format!("{}, each {} s", at.strftime("%F %T UTC"), every.as_secs())
}

/// Rows and columns; `None` where standard output is no terminal.
fn terminal() -> Option<(usize, usize)> {
    let out = stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok();
    let size = size.filter(|size| size.ws_row > 1 && size.ws_col > 0);
    // A terminal that does not tell has at least the size of the first ones.
    let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
    Some((rows.into(), columns.into()))
}

/// From the first row on, over what stands there; lines that do not fit are counted in the last row.
fn in_place(lines: &[String], (rows, columns): (usize, usize)) -> String {
    let height = |line: &String| line.chars().count().div_ceil(columns).max(1);
    let mut left = rows - 1;
    let fit = lines.iter().take_while(|line| {
        let fits = height(line) <= left;
        left = left.saturating_sub(height(line));
        fits
    });
    let fit = fit.count();
    // Each line ends what stood behind it, and the last one what stood below.
    let mut text = "\u{1b}[H".to_owned();
    for line in &lines[..fit] {
        text += line;
        text += "\u{1b}[K\r\n";
    }
    if fit < lines.len() {
        text += &format!("… {} lines more: xdb status", lines.len() - fit);
    }
    text += "\u{1b}[J";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_look_has_its_time() {
        let header = header(Timestamp::UNIX_EPOCH, Duration::from_secs(5));
        assert_eq!(header, "1970-01-01 00:00:00 UTC, each 5 s");
    }

    #[test]
    fn what_does_not_fit_is_counted_and_long_lines_take_several_rows() {
        let lines = ["0123456789", "b", "c"].map(str::to_owned);
        let all = in_place(&lines, (24, 80));
        assert!(
            all.starts_with("\u{1b}[H0123456789\u{1b}[K\r\nb")
                && all.ends_with("c\u{1b}[K\r\n\u{1b}[J")
        );
        let cut = in_place(&lines, (4, 5));
        assert!(
            cut.contains("b\u{1b}[K") && cut.ends_with("… 1 lines more: xdb status\u{1b}[J"),
            "{cut:?}"
        );
    }
}
