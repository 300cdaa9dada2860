//! Reads the keys of the kinds whose numbers a file describes: `sql` and `pgbouncer`.

use super::keys::Keys;
use super::show::{Columns, Condition, Fold, Whole};
use super::sql::{Databases, VersionedQuery};
use super::{DefinitionError, Measure, ShowCheck, SqlCheck};

pub(super) fn parse_sql(keys: &mut Keys) -> Result<SqlCheck, DefinitionError> {
    Ok(SqlCheck {
        queries: parse_queries(keys)?,
        databases: match keys.text("databases")? {
            None => Databases::Instance,
            Some("each") => Databases::Each,
            Some(name) => Databases::Named(name.to_owned()),
        },
        measure: parse_measure(keys)?,
    })
}

/// `query = "…"`, or a `[[query]]` for each range of versions.
fn parse_queries(keys: &mut Keys) -> Result<Vec<VersionedQuery>, DefinitionError> {
    let Some(tables) = keys.tables("query") else {
        let sql = keys.required("query")?.to_owned();
        return Ok(vec![VersionedQuery {
            from_version: 0,
            sql,
        }]);
    };
    let mut queries: Vec<VersionedQuery> = Vec::new();
    for table in tables {
        let mut own = keys.within("query.", table);
        let version = own.number("from_version")?;
        let whole =
            version.filter(|version| version.fract() == 0.0 && (9.0..1000.0).contains(version));
        let Some(version) = whole else {
            let message = "query.from_version is no major version such as 17".to_owned();
            return Err(own.wrong("from_version", message));
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is whole and between 9 and 1000"
        )]
        let from_version = version as u32;
        if queries
            .iter()
            .any(|query| query.from_version == from_version)
        {
            let message = format!("there are two queries from version {from_version} on");
            return Err(own.wrong("from_version", message));
        }
        let sql = own.required("sql")?.to_owned();
        own.finish()?;
        queries.push(VersionedQuery { from_version, sql });
    }
    queries.sort_by_key(|query| query.from_version);
    Ok(queries)
}

pub(super) fn parse_measure(keys: &mut Keys) -> Result<Measure, DefinitionError> {
    let may_be_empty = match keys.text("no_rows")? {
        None | Some("unknown") => false,
        Some("ok") => true,
        Some(other) => return Err(keys.expected("no_rows", other, "ok or unknown")),
    };
    let increase = keys.duration("increase")?;
    Ok(Measure {
        unit: keys.text("unit")?.unwrap_or_default().to_owned(),
        limits: keys.limits_with_margin()?,
        may_be_empty,
        increase: (!increase.is_zero()).then_some(increase),
    })
}

pub(super) fn parse_show(keys: &mut Keys) -> Result<ShowCheck, DefinitionError> {
    let show = parse_name_of_show(keys)?;
    let number = Columns {
        columns: parse_columns(keys)?,
        show: show.clone(),
    };
    let own = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let only = keys.pairs("where")?.into_iter().map(|(column, content)| {
        let other = content.strip_prefix('!');
        Condition {
            column: column.to_owned(),
            is: other.is_none(),
            content: other.unwrap_or(content).to_owned(),
        }
    });
    Ok(ShowCheck {
        number,
        only: only.collect(),
        of: parse_whole(keys, &show)?,
        group: own(keys.texts("group")?),
        fold: match keys.text("fold")? {
            None | Some("sum") => Fold::Sum,
            Some("max") => Fold::Max,
            Some("min") => Fold::Min,
            Some(other) => return Err(keys.expected("fold", other, "sum, max or min")),
        },
        detail: own(keys.texts("detail")?),
        measure: parse_measure(keys)?,
    })
}

/// A word, so that the console is asked for nothing else.
fn parse_name_of_show(keys: &mut Keys) -> Result<String, DefinitionError> {
    let show = keys.required("show")?;
    let is_word = show
        .bytes()
        .all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    match is_word {
        true => Ok(show.to_ascii_uppercase()),
        false => Err(keys.expected("show", show, "what follows SHOW, such as POOLS")),
    }
}

fn parse_columns(keys: &mut Keys) -> Result<Vec<Vec<String>>, DefinitionError> {
    let columns = keys.texts("value")?;
    if columns.iter().all(|names| names.trim().is_empty()) {
        return Err(keys.wrong("value", "value names no column".to_owned()));
    }
    let names = |names: &str| {
        names
            .split('|')
            .map(|name| name.trim().to_owned())
            .collect()
    };
    Ok(columns.into_iter().map(names).collect())
}

/// `[of]`, with `show` and `by` where it stands in another answer.
fn parse_whole(keys: &mut Keys, show: &str) -> Result<Option<Whole>, DefinitionError> {
    let Some(table) = keys.table("of")? else {
        return Ok(None);
    };
    let mut own = keys.within("of.", table);
    let other = match table.contains_key("show") {
        true => parse_name_of_show(&mut own)?,
        false => show.to_owned(),
    };
    let columns = parse_columns(&mut own)?;
    let by = own.pairs("by")?.into_iter();
    let by = by
        .map(|(own, other)| (own.to_owned(), other.to_owned()))
        .collect();
    own.finish()?;
    Ok(Some(Whole {
        columns: Columns {
            show: other,
            columns,
        },
        by,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::super::{Definition, Kind, Worse};
    use super::*;

    fn read(text: &str) -> Definition {
        let text = format!("title = 't'\n{text}");
        parse("x", "x.toml", &text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_check_on_sql_is_read() {
        let definition = read(
            "kind = 'sql'\nunit = '%'\nwarning = 20\ncritical = 5\nworse = 'below'\nrecover = 2\n\
             databases = 'each'\nno_rows = 'ok'\nincrease = '1h'\n\
             [[query]]\nfrom_version = 17\nsql = 'new'\n[[query]]\nfrom_version = 14\nsql = 'old'",
        );
        let Kind::Sql(sql) = definition.kind else {
            panic!("{definition:?}")
        };
        let queries: Vec<_> = sql
            .queries
            .iter()
            .map(|it| (it.from_version, it.sql.as_str()))
            .collect();
        assert_eq!(queries, [(14, "old"), (17, "new")]);
        assert_eq!(sql.databases, Databases::Each);
        let limits = sql.measure.limits;
        assert_eq!((limits.worse, limits.recover), (Worse::Below, 2.0));
        assert!(sql.measure.may_be_empty && sql.measure.increase.is_some());
    }

    #[test]
    fn a_check_on_pgbouncer_is_read() {
        let definition = read(
            "kind = 'pgbouncer'\nshow = 'pools'\nvalue = ['sv_active', 'sv_idle']\nwarning = 80\n\
             group = ['database', 'user']\nwhere = { database = '!pgbouncer', user = 'app' }\ndetail = 'maxwait'\n\
             fold = 'max'\n[of]\nshow = 'DATABASES'\nvalue = ['pool_size', 'reserve_pool_size|reserve_pool']\n\
             by = { database = 'name' }",
        );
        let Kind::PgBouncer(show) = definition.kind else {
            panic!("{definition:?}")
        };
        assert_eq!(show.shows(), ["POOLS", "DATABASES"]);
        assert_eq!(show.number.columns, [["sv_active"], ["sv_idle"]]);
        let whole = show.of.unwrap();
        assert_eq!(
            whole.columns.columns[1],
            ["reserve_pool_size", "reserve_pool"]
        );
        assert_eq!(whole.by, [("database".to_owned(), "name".to_owned())]);
        let only: Vec<_> = show
            .only
            .iter()
            .map(|it| (it.column.as_str(), it.is, it.content.as_str()))
            .collect();
        assert_eq!(
            only,
            [("database", false, "pgbouncer"), ("user", true, "app")]
        );
        assert_eq!(show.fold, Fold::Max);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let sql = "kind = 'sql'\nquery = 'x'\n";
        let show = "kind = 'pgbouncer'\nwarning = 1\n";
        for (text, words) in [
            ("kind = 'sql'\nwarning = 1".to_owned(), "x.toml: query is missing"),
            ("kind = 'sql'\nquery = 1\nwarning = 1".to_owned(), "x.toml:3: query is not text"),
            (format!("{sql}worse = 'low'"), "x.toml:4: worse is \"low\", expected above or below"),
            (format!("{sql}warning = 1\nrecover = -1"), "x.toml:5: recover is below 0"),
            (
                format!("{sql}warning = 1\ncritical = 2\nworse = 'below'"),
                "x.toml:4: warning is below critical",
            ),
            (format!("{sql}warning = 1\nno_rows = 'fine'"), "x.toml:5: no_rows is \"fine\""),
            (format!("{sql}warning = 1\nunits = 's'"), "x.toml:5: there is no key units"),
            (
                "kind = 'sql'\nwarning = 1\n[[query]]\nsql = 'x'".to_owned(),
                "query.from_version is no major version",
            ),
            (
                "kind = 'sql'\nwarning = 1\n[[query]]\nfrom_version = 17\nsql = 'x'\n[[query]]\nfrom_version = 17".to_owned(),
                "x.toml:8: there are two queries from version 17 on",
            ),
            (
                "kind = 'sql'\nwarning = 1\n[[query]]\nfrom_version = 17\nsql = 'x'\nunit = 's'".to_owned(),
                "x.toml:7: there is no key query.unit",
            ),
            (format!("{show}value = 'x'"), "show is missing"),
            (
                format!("{show}show = 'POOLS; SHUTDOWN'\nvalue = 'x'"),
                "x.toml:4: show is \"POOLS; SHUTDOWN\"",
            ),
            (format!("{show}show = 'POOLS'"), "value names no column"),
            (format!("{show}show = 'POOLS'\nvalue = 1"), "x.toml:5: value is neither"),
            (
                format!("{show}show = 'POOLS'\nvalue = 'x'\nof = 'y'"),
                "x.toml:6: of is no table",
            ),
            (
                format!("{show}show = 'POOLS'\nvalue = 'x'\n[of]\nvalue = 'y'\nmost = 1"),
                "x.toml:8: there is no key of.most",
            ),
        ] {
            let text = format!("title = 't'\n{text}");
            let error = parse("x", "x.toml", &text).unwrap_err().with_line();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
