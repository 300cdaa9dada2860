//! The Markdown of the runbooks as HTML: headings, paragraphs, lists, code. Everything else stays as it is written.

use maud::{Markup, html};

enum Block<'a> {
    Heading(&'a str),
    Paragraph(String),
    Items(Vec<String>),
    Code(String),
}

/// Renders `text`; a heading is at least of the third level, for the page has the first two.
pub(super) fn render(text: &str) -> Markup {
    html! {
        @for block in blocks(text) {
            @match block {
                Block::Heading(text) => { h3 { (inline(text)) } }
                Block::Paragraph(text) => { p { (inline(&text)) } }
                Block::Items(items) => { ul { @for item in items { li { (inline(&item)) } } } }
                // Reached by the keyboard, for it may scroll.
                Block::Code(text) => { pre tabindex="0" { code { (text) } } }
            }
        }
    }
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    let mut is_open = false;
    while let Some(line) = lines.next() {
        if line.starts_with("```") {
            let code: Vec<&str> = lines
                .by_ref()
                .take_while(|it| !it.starts_with("```"))
                .collect();
            blocks.push(Block::Code(code.join("\n")));
            is_open = false;
        } else if let Some(heading) = heading(line) {
            blocks.push(Block::Heading(heading));
            is_open = false;
        } else if let Some(item) = item(line) {
            match blocks.last_mut() {
                Some(Block::Items(items)) if is_open => items.push(item.to_owned()),
                _ => blocks.push(Block::Items(vec![item.to_owned()])),
            }
            is_open = true;
        } else if line.trim().is_empty() {
            is_open = false;
        } else {
            let open = blocks.last_mut().filter(|_| is_open);
            match open {
                Some(Block::Paragraph(text)) => *text = format!("{text} {}", line.trim()),
                Some(Block::Items(items)) => {
                    if let Some(last) = items.last_mut() {
                        *last = format!("{last} {}", line.trim());
                    }
                }
                _ => blocks.push(Block::Paragraph(line.trim().to_owned())),
            }
            is_open = true;
        }
    }
    blocks
}

fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    (text.len() < line.len()).then(|| text.strip_prefix(' '))?
}

/// The text of a list's item, `- …` or `1. …`.
fn item(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = digits
        .strip_prefix(". ")
        .filter(|_| digits.len() < line.len());
    line.strip_prefix("- ").or(numbered)
}

/// Between backquotes is code; of a link to another runbook the address is this daemon's, of others only the text is shown.
fn inline(text: &str) -> Markup {
    html! {
        @for (index, part) in text.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (links(part)) }
        }
    }
}

fn links(text: &str) -> Markup {
    let Some((before, label, address, after)) = first_link(text) else {
        return html! { (text) };
    };
    let name = address.split('#').next().unwrap_or_default();
    let name = name.strip_suffix(".md").filter(|name| !name.contains('/'));
    html! {
        (before)
        @match name {
            Some(name) => { a href={ "/runbooks/" (name) } { (label) } }
            None => { (label) }
        }
        (links(after))
    }
}

/// The text before `[label](address)`, its parts, and the text after it.
fn first_link(text: &str) -> Option<(&str, &str, &str, &str)> {
    let (before, rest) = text.split_once('[')?;
    let (label, rest) = rest.split_once("](")?;
    let (address, after) = rest.split_once(')')?;
    Some((before, label, address, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runbook_becomes_html_and_nothing_in_it_is_markup() {
        let text = "# s3: <b>\n\n## Meaning\n\nOne `a < b`\ntwo.\n- see [s3](s3.md) and\n  [docs](../README.md)\n- two\n\n```sh\nx & y\n```\n";
        assert_eq!(
            render(text).into_string(),
            "<h3>s3: &lt;b&gt;</h3><h3>Meaning</h3><p>One <code>a &lt; b</code> two.</p>\
             <ul><li>see <a href=\"/runbooks/s3\">s3</a> and docs</li><li>two</li></ul>\
             <pre tabindex=\"0\"><code>x &amp; y</code></pre>"
        );
    }
}
