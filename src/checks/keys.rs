//! The keys of a check's file, and which of them were read: any other is an error with its line.

use std::time::Duration;

use jiff::SignedDuration;
use toml_edit::{ArrayOfTables, Item, TableLike};

use super::program::parse_version;
use super::{DefinitionError, Limits, Oldest, Worse};
use crate::model::line_of;

/// A file's keys, and which of them were read.
pub(super) struct Keys<'a> {
    file: &'a str,
    text: &'a str,
    table: &'a dyn TableLike,
    /// As "of." for the keys of `[of]`.
    prefix: &'static str,
    read: Vec<&'static str>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(file: &'a str, text: &'a str, table: &'a dyn TableLike) -> Self {
        Self {
            file,
            text,
            table,
            prefix: "",
            read: Vec::new(),
        }
    }

    /// The keys of a table within this one.
    pub(super) fn within(&self, prefix: &'static str, table: &'a dyn TableLike) -> Self {
        Self {
            prefix,
            table,
            ..Self::new(self.file, self.text, table)
        }
    }

    pub(super) fn get(&mut self, key: &'static str) -> Option<&'a Item> {
        self.read.push(key);
        self.table.get(key)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<&'a str>, DefinitionError> {
        let Some(item) = self.get(key) else {
            return Ok(None);
        };
        let text = item.as_str().map(str::trim).filter(|text| !text.is_empty());
        text.map(Some)
            .ok_or_else(|| self.wrong(key, format!("{key} is not text")))
    }

    pub(super) fn required(&mut self, key: &'static str) -> Result<&'a str, DefinitionError> {
        self.text(key)?
            .ok_or_else(|| self.wrong(key, format!("{}{key} is missing", self.prefix)))
    }

    /// One text, or several.
    pub(super) fn texts(&mut self, key: &'static str) -> Result<Vec<&'a str>, DefinitionError> {
        let Some(item) = self.get(key) else {
            return Ok(Vec::new());
        };
        let wrong = || {
            self.wrong(
                key,
                format!("{key} is neither a text nor an array of texts"),
            )
        };
        if let Some(text) = item.as_str() {
            return Ok(vec![text]);
        }
        let array = item.as_array().ok_or_else(wrong)?;
        array
            .iter()
            .map(|one| one.as_str().ok_or_else(wrong))
            .collect()
    }

    /// A table; `None` where the key is missing.
    pub(super) fn table(
        &mut self,
        key: &'static str,
    ) -> Result<Option<&'a dyn TableLike>, DefinitionError> {
        let Some(item) = self.get(key) else {
            return Ok(None);
        };
        let table = item.as_table_like();
        table
            .map(Some)
            .ok_or_else(|| self.wrong(key, format!("{key} is no table")))
    }

    /// An array of tables, as `[[query]]`; `None` where the key is another item, or missing.
    pub(super) fn tables(&mut self, key: &'static str) -> Option<&'a ArrayOfTables> {
        self.get(key)?.as_array_of_tables()
    }

    /// The pairs of a table of texts.
    pub(super) fn pairs(
        &mut self,
        key: &'static str,
    ) -> Result<Vec<(&'a str, &'a str)>, DefinitionError> {
        let Some(table) = self.table(key)? else {
            return Ok(Vec::new());
        };
        let pair = |(name, item): (&'a str, &'a Item)| match item.as_str() {
            Some(text) => Ok((name, text)),
            None => Err(self.wrong(key, format!("{key}.{name} is not text"))),
        };
        table.iter().map(pair).collect()
    }

    /// `worse` and `recover`, which change what limits mean.
    pub(super) fn limits_with_margin(&mut self) -> Result<Limits, DefinitionError> {
        let worse = match self.text("worse")? {
            None | Some("above") => Worse::Above,
            Some("below") => Worse::Below,
            Some(other) => return Err(self.expected("worse", other, "above or below")),
        };
        let (warning, critical) = (self.number("warning")?, self.number("critical")?);
        let recover = self.number("recover")?.unwrap_or(0.0);
        if recover < 0.0 {
            return Err(self.wrong("recover", "recover is below 0".to_owned()));
        }
        let limits = Limits {
            warning,
            critical,
            worse,
            recover,
        };
        self.checked(limits, "warning", "critical")
    }

    pub(super) fn number(&mut self, key: &'static str) -> Result<Option<f64>, DefinitionError> {
        let Some(item) = self.get(key) else {
            return Ok(None);
        };
        #[expect(clippy::cast_precision_loss, reason = "limits are far below 2^53")]
        let number = item
            .as_float()
            .or(item.as_integer().map(|number| number as f64));
        number
            .filter(|number| number.is_finite())
            .map(Some)
            .ok_or_else(|| self.wrong(key, format!("{key} is not a number")))
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Result<Duration, DefinitionError> {
        let Some(text) = self.text(key)? else {
            return Ok(Duration::ZERO);
        };
        let duration = text.parse::<SignedDuration>().ok();
        duration
            .and_then(|duration| Duration::try_from(duration).ok())
            .ok_or_else(|| self.expected(key, text, "a duration such as 30s or 5m"))
    }

    /// The release in the key `program`.
    pub(super) fn oldest(&mut self, program: &'static str) -> Result<Oldest, DefinitionError> {
        let text = self.required(program)?;
        let version = parse_version(text);
        let version = version.ok_or_else(|| self.expected(program, text, "a release such as 3.0"));
        Ok(Oldest {
            program,
            version: version?,
        })
    }

    /// At least one of `warning` and `critical`.
    pub(super) fn limits(&mut self) -> Result<Limits, DefinitionError> {
        self.limits_of("warning", "critical")
    }

    pub(super) fn limits_of(
        &mut self,
        warning: &'static str,
        critical: &'static str,
    ) -> Result<Limits, DefinitionError> {
        let limits = Limits {
            warning: self.number(warning)?,
            critical: self.number(critical)?,
            ..Limits::default()
        };
        self.checked(limits, warning, critical)
    }

    /// [`Keys::limits`] that are durations, as seconds.
    pub(super) fn ages(&mut self) -> Result<Limits, DefinitionError> {
        let limits = self.durations()?;
        self.checked(limits, "warning", "critical")
    }

    /// The same where less is worse.
    pub(super) fn remaining(&mut self) -> Result<Limits, DefinitionError> {
        let limits = Limits {
            worse: Worse::Below,
            ..self.durations()?
        };
        self.checked(limits, "warning", "critical")
    }

    fn durations(&mut self) -> Result<Limits, DefinitionError> {
        let secs = |age: Duration| (!age.is_zero()).then_some(age.as_secs_f64());
        Ok(Limits {
            warning: secs(self.duration("warning")?),
            critical: secs(self.duration("critical")?),
            ..Limits::default()
        })
    }

    fn checked(
        &self,
        limits: Limits,
        warning: &str,
        critical: &str,
    ) -> Result<Limits, DefinitionError> {
        let beyond = match (limits.warning, limits.critical, limits.worse) {
            (None, None, _) => {
                return Err(self.wrong(warning, format!("neither {warning} nor {critical} is set")));
            }
            (Some(low), Some(high), Worse::Above) if low > high => "above",
            (Some(high), Some(low), Worse::Below) if high < low => "below",
            _ => return Ok(limits),
        };
        Err(self.wrong(warning, format!("{warning} is {beyond} {critical}")))
    }

    pub(super) fn finish(self) -> Result<(), DefinitionError> {
        let unknown = self.table.iter().find(|(key, _)| !self.read.contains(key));
        match unknown {
            Some((key, _)) => Err(self.wrong(
                key,
                format!("there is no key {}{key} in this kind", self.prefix),
            )),
            None => Ok(()),
        }
    }

    pub(super) fn expected(&self, key: &str, found: &str, expected: &str) -> DefinitionError {
        let prefix = self.prefix;
        self.wrong(
            key,
            format!("{prefix}{key} is {found:?}, expected {expected}"),
        )
    }

    pub(super) fn wrong(&self, key: &str, message: String) -> DefinitionError {
        let span = self.table.get_key_value(key).and_then(|(key, item)| {
            // The key's own place, or that of what it holds.
            key.span().or_else(|| item.span())
        });
        DefinitionError::Wrong {
            file: self.file.to_owned(),
            line: span.map(|span| line_of(self.text.as_bytes(), span.start)),
            message,
        }
    }
}
