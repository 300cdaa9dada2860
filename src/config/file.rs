//! Reads `xdb.toml`: every key that it sets, with its line, and everything wrong in it at once.

use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use toml_edit::{Document, Item, TableLike, Value as Toml};

use super::error::{ConfigError, Problem};
use super::key::Key;
use super::keys::{SETTINGS, section_names};
use super::kind::{Form, ValueKind};
use super::notify::{self, NOTIFY};
use super::program_settings;
use super::serving::is_needed_to_serve;
use super::source::{Assignment, ConfigFile, SettingSource};
use crate::model::line_of;

/// What every user may do with a file.
const OTHERS: u32 = 0o007;

/// Reads and checks `file`; problems with single keys go to `problems`. A file that shows a secret to every user is read all
/// the same, with the complaint beside it.
///
/// # Errors
/// When the file cannot be read or is not TOML.
pub(super) fn read(
    file: &ConfigFile,
    problems: &mut Vec<Problem>,
) -> Result<(Vec<Assignment>, Option<ConfigError>), ConfigError> {
    let path = file.path();
    let Some((text, mode)) = read_text(file)? else {
        return Ok((Vec::new(), None));
    };
    let given = parse(path, &text, problems)?;
    let secret = given
        .iter()
        .find(|given| is_secret(&given.key, &given.text));
    let exposed = secret.filter(|_| mode & OTHERS != 0);
    let exposed = exposed.map(|secret| ConfigError::Exposed {
        path: path.to_owned(),
        key: secret.key.clone(),
        mode: mode & 0o7777,
    });
    Ok((given, exposed))
}

fn read_text(file: &ConfigFile) -> Result<Option<(Vec<u8>, u32)>, ConfigError> {
    let path = file.path().to_owned();
    let read = || {
        let mut opened = std::fs::File::open(&path)?;
        // Of the file that was opened: its name may change hands meanwhile.
        let mode = opened.metadata()?.permissions().mode();
        let mut text = Vec::new();
        opened.read_to_end(&mut text)?;
        Ok((text, mode))
    };
    match read() {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_missing(&error) && matches!(file, ConfigFile::Default(_)) => Ok(None),
        Err(error) if is_missing(&error) => Err(ConfigError::Missing { path }),
        Err(source) => Err(ConfigError::Read { path, source }),
    }
}

fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn is_secret(key: &str, text: &str) -> bool {
    match key.strip_prefix(SETTINGS) {
        Some(name) => program_settings::is_secret(name),
        None if notify::is_secret(key) => ValueKind::Endpoint.hides(text),
        None => Key::named(key).is_some_and(|key| key.kind.hides(text)),
    }
}

/// Where in the text an item stands.
struct Text<'a> {
    path: &'a Path,
    text: &'a str,
}

fn parse(
    path: &Path,
    bytes: &[u8],
    problems: &mut Vec<Problem>,
) -> Result<Vec<Assignment>, ConfigError> {
    let text = without_wrong_lines(path, bytes, problems)?;
    let document = parse_toml(path, text.as_bytes()).map_err(|(_, error)| error)?;
    let place = Text { path, text: &text };
    let mut given = Vec::new();
    for (section, item) in document.iter() {
        let source = place.source(document.as_table(), section);
        match item.as_table_like() {
            _ if section == NOTIFY => notify::read(
                item,
                |table, leaf| place.source(table, leaf),
                |kind, item| text_of(kind.form(), item),
                &mut given,
                problems,
            ),
            _ if !section_names().any(|name| name == section) => problems.push(match item {
                Item::Value(_) => Problem::outside_section(&source, section),
                _ => Problem::unknown_section(&source, section),
            }),
            Some(table) => place.section(section, table, &mut given, problems),
            None => problems.push(Problem::no_table(&source, section)),
        }
    }
    Ok(given)
}

/// # Errors
/// With the line that is not TOML.
fn parse_toml<'a>(path: &Path, bytes: &'a [u8]) -> Result<Document<&'a str>, (usize, ConfigError)> {
    let syntax = |offset, message: &str| {
        let line = line_of(bytes, offset);
        let error = ConfigError::Syntax {
            path: path.to_owned(),
            line,
            message: message.to_owned(),
        };
        (line, error)
    };
    let text =
        std::str::from_utf8(bytes).map_err(|error| syntax(error.valid_up_to(), "not UTF-8"))?;
    // Only the parser's words: its whole message would show the line, which may hold a secret.
    Document::parse(text).map_err(|error| {
        let offset = error.span().map_or(bytes.len(), |span| span.start);
        syntax(offset, error.message())
    })
}

/// The text with each line emptied that is not TOML and that serving does not need: a value without quotes in `[dump]` must
/// not end the daemon.
///
/// # Errors
/// Where serving needs the line, or may need it.
fn without_wrong_lines(
    path: &Path,
    bytes: &[u8],
    problems: &mut Vec<Problem>,
) -> Result<String, ConfigError> {
    let mut lines: Vec<Vec<u8>> = bytes
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect();
    loop {
        let text = lines.join(&b'\n');
        let Err((line, error)) = parse_toml(path, &text) else {
            // What was parsed is UTF-8.
            return Ok(String::from_utf8(text).unwrap_or_default());
        };
        let index = line.saturating_sub(1);
        let is_comment = |line: &Vec<u8>| line.trim_ascii_start().starts_with(b"#");
        let problem = if lines.get(index).is_some_and(is_comment) {
            Some(Problem::syntax_of_comment(&error))
        } else {
            let key = key_on(&lines, index).filter(|key| !is_needed_to_serve(key));
            key.map(|key| Problem::syntax(&error, key))
        };
        let (Some(problem), Some(wrong)) = (problem, lines.get_mut(index)) else {
            return Err(error);
        };
        problems.push(problem);
        wrong.clear();
    }
}

/// Which key the line sets, or the section that it stands in; `None` for a line without text, outside of any section, or that
/// begins one.
fn key_on(lines: &[Vec<u8>], index: usize) -> Option<String> {
    let is_key = |text: &str| {
        let in_key = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        !text.is_empty() && text.chars().all(in_key)
    };
    let line = String::from_utf8_lossy(lines.get(index)?);
    let line = line.trim();
    if line.is_empty() || line.starts_with('[') {
        return None;
    }
    let before = lines.iter().take(index).rev();
    let mut headers = before.filter_map(|line| {
        let line = String::from_utf8_lossy(line);
        let name = line.trim().strip_prefix('[')?.split(']').next()?.trim();
        Some(name.to_owned())
    });
    let section = headers.next()?;
    let name = line.split_once('=').map(|(name, _)| name.trim());
    Some(match name.filter(|name| is_key(name)) {
        Some(name) => format!("{section}.{name}"),
        None => section,
    })
}

impl Text<'_> {
    fn section(
        &self,
        section: &str,
        table: &dyn TableLike,
        given: &mut Vec<Assignment>,
        problems: &mut Vec<Problem>,
    ) {
        for (leaf, item) in table.iter() {
            let source = self.source(table, leaf);
            let name = format!("{section}.{leaf}");
            if SETTINGS.strip_suffix('.') == Some(name.as_str()) {
                match item.as_table_like() {
                    Some(table) => self.settings(table, given, problems),
                    None => problems.push(Problem::no_table(&source, &name)),
                }
                continue;
            }
            let Some(key) = Key::named(&name) else {
                problems.push(Problem::unknown_key(&source, &name));
                continue;
            };
            match text_of(key.kind.form(), item).filter(|text| key.kind.parse(text).is_some()) {
                Some(text) => given.push(Assignment {
                    key: name,
                    text,
                    source,
                }),
                None => problems.push(Problem::value(&source, key, &describe(key.kind, item))),
            }
        }
    }

    fn settings(
        &self,
        table: &dyn TableLike,
        given: &mut Vec<Assignment>,
        problems: &mut Vec<Problem>,
    ) {
        for (name, item) in table.iter() {
            let source = self.source(table, name);
            if let Some(problem) = program_settings::judge_name(&source, name) {
                problems.push(problem);
                continue;
            }
            let text = match item.as_value() {
                Some(Toml::String(text)) => Some(text.value().clone()),
                Some(Toml::Integer(number)) => Some(number.value().to_string()),
                Some(Toml::Float(number)) => Some(number.value().to_string()),
                Some(Toml::Boolean(switch)) => Some(switch.value().to_string()),
                _ => None,
            };
            match text.filter(|text| !text.is_empty() && !text.contains('\0')) {
                Some(text) => given.push(Assignment {
                    key: format!("{SETTINGS}{name}"),
                    text,
                    source,
                }),
                None => problems.push(program_settings::wrong_value(
                    &source,
                    name,
                    describe_type(item),
                )),
            }
        }
    }

    /// The line on which `name` is set.
    fn source(&self, table: &dyn TableLike, name: &str) -> SettingSource {
        let key = table.get_key_value(name).and_then(|(key, _)| key.span());
        let item = || table.get(name).and_then(Item::span);
        let offset = key.or_else(item).map_or(0, |span| span.start);
        SettingSource::File {
            path: self.path.to_owned(),
            line: line_of(self.text.as_bytes(), offset),
        }
    }
}

fn text_of(form: Form, item: &Item) -> Option<String> {
    match (form, item.as_value()?) {
        (Form::Quoted, Toml::String(text)) => Some(text.value().clone()),
        (Form::Integer, Toml::Integer(number)) => Some(number.value().to_string()),
        (Form::Boolean, Toml::Boolean(switch)) => Some(switch.value().to_string()),
        _ => None,
    }
}

/// What stands in the file instead of what was expected; a secret's value does not appear.
fn describe(kind: ValueKind, item: &Item) -> String {
    match item.as_value() {
        Some(Toml::String(text)) if !text.value().is_empty() && kind.may_show(text.value()) => {
            format!("the text {:?}", text.value())
        }
        Some(Toml::Integer(number)) if !matches!(kind, ValueKind::Secret | ValueKind::Endpoint) => {
            format!("the number {}", number.value())
        }
        _ => describe_type(item).to_owned(),
    }
}

fn describe_type(item: &Item) -> &'static str {
    match item.as_value() {
        Some(Toml::String(text)) if text.value().is_empty() => "empty",
        Some(Toml::String(_)) => "text that is not shown",
        Some(Toml::Integer(_) | Toml::Float(_)) => "a number",
        Some(Toml::Boolean(_)) => "a boolean",
        Some(Toml::Datetime(_)) => "a date or time",
        Some(Toml::Array(_)) => "an array",
        Some(Toml::InlineTable(_)) | None => "a table",
    }
}
