//! Checks of kind `pgbouncer`: any column of any `SHOW`, by name. Pure.
//!
//! An answer of names and values (`LISTS`, `CONFIG`, `STATE`, `TOTALS`) is read as one row whose columns are the names.

use std::collections::BTreeMap;

use super::trace::Answer;
use super::values::Sampled;
use super::{Measure, SampleError};

/// A number of PgBouncer's console.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShowCheck {
    pub number: Columns,
    /// The value is then percent of this; rows where it is 0 have no limit, and are left out.
    pub of: Option<Whole>,
    /// Rows alike in these columns are one object, named after them; without any, all rows are one.
    pub group: Vec<String>,
    pub fold: Fold,
    /// Rows that count.
    pub only: Vec<Condition>,
    /// Columns that are shown beside the value.
    pub detail: Vec<String>,
    pub measure: Measure,
}

/// The sum of some columns of one `SHOW`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns {
    pub show: String,
    /// Each with the names that it has in some release, best first.
    pub columns: Vec<Vec<String>>,
}

/// What a value is percent of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Whole {
    pub columns: Columns,
    /// Columns of the value's row, each with the one of the same content in the other `SHOW`.
    pub by: Vec<(String, String)>,
}

/// What many rows of one object make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fold {
    #[default]
    Sum,
    Max,
    Min,
}

/// A row counts where the column is, or is not, of this content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub column: String,
    pub is: bool,
    pub content: String,
}

impl ShowCheck {
    /// The `SHOW` commands that it reads, without the word.
    pub(super) fn shows(&self) -> Vec<&str> {
        let own = self.number.show.as_str();
        let other = self.of.as_ref().map(|of| of.columns.show.as_str());
        let other = other.filter(|other| *other != own);
        std::iter::once(own).chain(other).collect()
    }

    /// The value of each object, in the order of the rows.
    ///
    /// # Errors
    /// When a column is not there.
    pub(super) fn values(
        &self,
        answer: &Answer,
        of: Option<&Answer>,
    ) -> Result<Vec<Sampled>, SampleError> {
        let answer = View::new(&self.number.show, answer);
        let number = answer.find_all(&self.number.columns)?;
        let group = answer.positions(&self.group)?;
        let detail = answer.positions(&self.detail)?;
        let only = self.conditions(&answer)?;
        let whole = match &self.of {
            None => None,
            Some(of_what) => Some(Wholes::new(of_what, &answer, of)?),
        };
        let mut order = Vec::new();
        let mut objects: BTreeMap<Vec<&str>, Folded> = BTreeMap::new();
        for row in &answer.rows {
            if !only
                .iter()
                .all(|(at, condition)| condition.holds(cell(row, *at)))
            {
                continue;
            }
            let part = match &whole {
                None => None,
                Some(whole) => match whole.of(row) {
                    // It was forgotten since, or has no limit.
                    None | Some(Ok(0.0)) => continue,
                    Some(part) => Some(part),
                },
            };
            let key: Vec<_> = group
                .iter()
                .map(|at| cell(row, *at).unwrap_or(""))
                .collect();
            let folded = objects.entry(key.clone()).or_insert_with(|| {
                order.push(key);
                Folded::default()
            });
            folded.add(self.fold, &sum(row, &number), part);
            let shown = detail.iter().zip(&self.detail);
            folded.detail.extend(
                shown.map(|(at, name)| format!("{name} {}", cell(row, *at).unwrap_or("NULL"))),
            );
        }
        let values = order
            .iter()
            .filter_map(|key| Some((key, objects.get(key)?)));
        Ok(values
            .map(|(key, folded)| folded.value(Some(key.join("/")).filter(|it| !it.is_empty())))
            .collect())
    }

    fn conditions(&self, view: &View<'_>) -> Result<Vec<(usize, &Condition)>, SampleError> {
        let find = |condition: &'_ Condition| view.position(&condition.column);
        self.only
            .iter()
            .map(|condition| Ok((find(condition)?, condition)))
            .collect()
    }
}

impl Condition {
    fn holds(&self, cell: Option<&str>) -> bool {
        (cell.unwrap_or("") == self.content) == self.is
    }
}

/// The numbers of one object.
#[derive(Debug, Default)]
struct Folded {
    number: Option<Result<f64, String>>,
    whole: Option<Result<f64, String>>,
    detail: Vec<String>,
}

impl Folded {
    fn add(
        &mut self,
        fold: Fold,
        number: &Result<f64, String>,
        whole: Option<Result<f64, String>>,
    ) {
        self.number = Some(folded(fold, self.number.take(), number.clone()));
        if let Some(whole) = whole {
            self.whole = Some(folded(Fold::Sum, self.whole.take(), whole));
        }
    }

    fn value(&self, object: Option<String>) -> Sampled {
        let number = self.number.clone().unwrap_or(Ok(0.0));
        let (number, used) = match (number, &self.whole) {
            (Ok(number), Some(Ok(whole))) => (
                Ok(100.0 * number / whole),
                Some(format!("{number} of {whole}")),
            ),
            (Ok(_), Some(Err(reason))) => (Err(reason.clone()), None),
            (number, _) => (number, None),
        };
        // Of many rows the first few are enough to begin with.
        let details = used.into_iter().chain(self.detail.iter().take(8).cloned());
        let details: Vec<_> = details.collect();
        Sampled {
            object,
            number,
            detail: (!details.is_empty()).then(|| details.join(", ")),
        }
    }
}

fn folded(
    fold: Fold,
    before: Option<Result<f64, String>>,
    next: Result<f64, String>,
) -> Result<f64, String> {
    let Some(before) = before else { return next };
    let (before, next) = (before?, next?);
    Ok(match fold {
        Fold::Sum => before + next,
        Fold::Max => before.max(next),
        Fold::Min => before.min(next),
    })
}

fn cell(row: &[Option<String>], at: usize) -> Option<&str> {
    row.get(at)?.as_deref()
}

fn sum(row: &[Option<String>], columns: &[(usize, &str)]) -> Result<f64, String> {
    let mut sum = 0.0;
    for (at, name) in columns {
        sum += Sampled::parse(cell(row, *at)).map_err(|reason| format!("{name}: {reason}"))?;
    }
    Ok(sum)
}

/// The whole of each row, found by the content of some of its columns.
struct Wholes<'a> {
    /// Positions in the value's own rows; `None` where the whole stands in the same row.
    by: Option<Vec<usize>>,
    columns: Vec<(usize, &'a str)>,
    others: BTreeMap<Vec<String>, Result<f64, String>>,
}

impl<'a> Wholes<'a> {
    fn new(
        whole: &'a Whole,
        own: &View<'a>,
        other: Option<&'a Answer>,
    ) -> Result<Self, SampleError> {
        let Some(other) = other else {
            return Ok(Self {
                by: None,
                columns: own.find_all(&whole.columns.columns)?,
                others: BTreeMap::new(),
            });
        };
        let other = View::new(&whole.columns.show, other);
        let columns = other.find_all(&whole.columns.columns)?;
        let (mine, theirs): (Vec<_>, Vec<_>) = whole.by.iter().cloned().unzip();
        let keys = other.positions(&theirs)?;
        let others = other.rows.iter().map(|row| {
            let key = keys
                .iter()
                .map(|at| cell(row, *at).unwrap_or("").to_owned());
            (key.collect(), sum(row, &columns))
        });
        Ok(Self {
            by: Some(own.positions(&mine)?),
            others: others.collect(),
            columns: Vec::new(),
        })
    }

    fn of(&self, row: &[Option<String>]) -> Option<Result<f64, String>> {
        let Some(by) = &self.by else {
            return Some(sum(row, &self.columns));
        };
        let key: Vec<_> = by
            .iter()
            .map(|at| cell(row, *at).unwrap_or("").to_owned())
            .collect();
        self.others.get(&key).cloned()
    }
}

/// An answer, with one of names and values turned into a row.
struct View<'a> {
    show: &'a str,
    columns: Vec<&'a str>,
    rows: Vec<Vec<Option<String>>>,
}

impl<'a> View<'a> {
    fn new(show: &'a str, answer: &'a Answer) -> Self {
        let position = |name: &str| answer.columns.iter().position(|column| column == name);
        let pairs = [("list", "items"), ("key", "value"), ("name", "value")]
            .into_iter()
            .find_map(|(name, value)| Some((position(name)?, position(value)?)));
        let Some((name, value)) = pairs else {
            return Self {
                show,
                columns: answer.columns.iter().map(String::as_str).collect(),
                rows: answer.rows.clone(),
            };
        };
        let named = answer.rows.iter().filter_map(|row| {
            let value = row.get(value).cloned().flatten();
            Some((row.get(name)?.as_deref()?, value))
        });
        let (columns, row): (Vec<_>, Vec<_>) = named.unzip();
        Self {
            show,
            columns,
            rows: vec![row],
        }
    }

    fn position(&self, name: &str) -> Result<usize, SampleError> {
        let position = self.columns.iter().position(|column| *column == name);
        position.ok_or_else(|| self.missing(name))
    }

    fn positions(&self, names: &[String]) -> Result<Vec<usize>, SampleError> {
        names.iter().map(|name| self.position(name)).collect()
    }

    fn find_all<'n>(
        &self,
        columns: &'n [Vec<String>],
    ) -> Result<Vec<(usize, &'n str)>, SampleError> {
        let find = |names: &'n Vec<String>| {
            let mut found = names
                .iter()
                .filter_map(|name| Some((self.position(name).ok()?, name.as_str())));
            found
                .next()
                .ok_or_else(|| self.missing(&names.join(" or ")))
        };
        columns.iter().map(find).collect()
    }

    fn missing(&self, column: &str) -> SampleError {
        SampleError::NoColumn {
            show: self.show.to_owned(),
            column: column.to_owned(),
            columns: self.columns.join(", "),
        }
    }
}

#[cfg(test)]
#[path = "show_tests.rs"]
mod tests;
