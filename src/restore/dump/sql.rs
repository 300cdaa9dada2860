//! The tokens of SQL that `pg_dump` wrote: enough to find statements and names in it. Pure.

/// A token, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub kind: TokenKind,
    /// A name without its quotes; anything else as it stands.
    pub text: String,
    pub start: usize,
    pub end: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A keyword, or a name without quotes.
    Word,
    /// A name in double quotes.
    Quoted,
    /// A string or a number.
    Value,
    /// One character.
    Symbol,
}

impl Token {
    /// Whether it is this keyword; `pg_dump` quotes names that are keywords.
    pub(super) fn is(&self, keyword: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(keyword)
    }

    pub(super) fn is_symbol(&self, symbol: char) -> bool {
        self.kind == TokenKind::Symbol && self.text.starts_with(symbol)
    }

    pub(super) fn is_name(&self) -> bool {
        matches!(self.kind, TokenKind::Word | TokenKind::Quoted)
    }
}

/// `name` as SQL reads it whatever it holds.
pub(super) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The tokens of `sql`. Comments, and psql's own commands, which begin a line with a backslash, are none.
pub(super) fn tokens(sql: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = sql[at..].chars().next() {
        let rest = &sql[at..];
        let (kind, length) = match first {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '-' if rest.starts_with("--") => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            '\\' => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            '\'' => (TokenKind::Value, quoted_length(rest, '\'', false)),
            'e' | 'E' if rest[1..].starts_with('\'') => {
                (TokenKind::Value, 1 + quoted_length(&rest[1..], '\'', true))
            }
            '"' => (TokenKind::Quoted, quoted_length(rest, '"', false)),
            '$' => match dollar_length(rest) {
                Some(length) => (TokenKind::Value, length),
                None => (TokenKind::Symbol, 1),
            },
            c if c.is_ascii_digit() => (TokenKind::Value, word_length(rest)),
            c if is_of_word(c) => (TokenKind::Word, word_length(rest)),
            c => (TokenKind::Symbol, c.len_utf8()),
        };
        let text = &rest[..length];
        let text = match kind {
            TokenKind::Quoted => text[1..].strip_suffix('"').unwrap_or(&text[1..]),
            _ => text,
        };
        tokens.push(Token {
            kind,
            text: match kind {
                TokenKind::Quoted => text.replace("\"\"", "\""),
                _ => text.to_owned(),
            },
            start: at,
            end: at + length,
        });
        at += length;
    }
    tokens
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || !c.is_ascii()
}

fn word_length(text: &str) -> usize {
    let end = text.find(|c| !(is_of_word(c) || c == '$'));
    end.unwrap_or(text.len())
}

/// The length of what is in quotes at the begin of `text`; a doubled quote is no end, nor one after a backslash where those escape.
fn quoted_length(text: &str, quote: char, escapes: bool) -> usize {
    let mut inner = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = inner.next() {
        if escapes && c == '\\' {
            inner.next();
        } else if c == quote && inner.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// The length of a string in dollar quotes at the begin of `text`.
fn dollar_length(text: &str) -> Option<usize> {
    let tag_end = 1 + text[1..].find(|c| !is_of_word(c))?;
    let tag = text.get(..=tag_end).filter(|tag| tag.ends_with('$'))?;
    let body = &text[tag.len()..];
    Some(tag.len() + body.find(tag).map_or(body.len(), |end| end + tag.len()))
}

/// One statement without its semicolon, and its tokens.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    pub sql: &'a str,
    /// Their places are within `sql`.
    pub tokens: Vec<Token>,
}

impl Statement<'_> {
    /// Whether it begins with these keywords.
    pub(super) fn begins(&self, keywords: &[&str]) -> bool {
        let pairs = self.tokens.iter().zip(keywords);
        self.tokens.len() >= keywords.len() && pairs.clone().all(|(token, word)| token.is(word))
    }

    /// The names that follow `keyword`, separated by commas, at each place where it stands.
    pub(super) fn names_after(&self, keyword: &str) -> Vec<&str> {
        let mut names = Vec::new();
        for (at, _) in self
            .tokens
            .iter()
            .enumerate()
            .filter(|(_, it)| it.is(keyword))
        {
            let mut rest = &self.tokens[at + 1..];
            while let [name, after @ ..] = rest {
                if !name.is_name() {
                    break;
                }
                names.push(name.text.as_str());
                match after {
                    [comma, more @ ..] if comma.is_symbol(',') => rest = more,
                    _ => break,
                }
            }
        }
        names
    }

    /// The statement with `new` in place of the name `old` wherever that follows the keyword DATABASE.
    pub(super) fn with_database(&self, old: &str, new: &str) -> String {
        let mut sql = String::with_capacity(self.sql.len());
        let mut copied = 0;
        for pair in self.tokens.windows(2) {
            if pair[0].is("DATABASE") && pair[1].is_name() && pair[1].text == old {
                sql.push_str(&self.sql[copied..pair[1].start]);
                sql.push_str(&quote_name(new));
                copied = pair[1].end;
            }
        }
        sql.push_str(&self.sql[copied..]);
        sql
    }
}

/// The statements of `sql`.
pub(super) fn statements(sql: &str) -> Vec<Statement<'_>> {
    let mut found = Vec::new();
    let mut current: Vec<Token> = Vec::new();
    let mut end_with = |tokens: &mut Vec<Token>| {
        let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
            return;
        };
        let (start, end) = (first.start, last.end);
        let mut tokens = std::mem::take(tokens);
        for token in &mut tokens {
            token.start -= start;
            token.end -= start;
        }
        found.push(Statement {
            sql: &sql[start..end],
            tokens,
        });
    };
    for token in tokens(sql) {
        if token.is_symbol(';') {
            end_with(&mut current);
        } else {
            current.push(token);
        }
    }
    end_with(&mut current);
    found
}

/// Schema and name of a table, as the manifest or an operator quotes them; `None` for text that is not one or two names.
pub(super) fn parse_table(text: &str) -> Option<(Option<String>, String)> {
    let name = |token: &Token| match token.kind {
        TokenKind::Quoted => token.text.clone(),
        _ => token.text.to_lowercase(),
    };
    match tokens(text).as_slice() {
        [table] if table.is_name() => Some((None, name(table))),
        [schema, dot, table] if schema.is_name() && dot.is_symbol('.') && table.is_name() => {
            Some((Some(name(schema)), name(table)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_of_quotes() {
        let sql = "\\restrict x;y\nSET a = 'b;''c';  -- no; statement\n\
            CREATE ROLE \"o;\"\"dd\";\nDO $f$ a; b $f$;\nALTER ROLE r SET x TO E'a\\';b';\n";
        let found: Vec<&str> = statements(sql).iter().map(|it| it.sql).collect();
        assert_eq!(
            found,
            [
                "SET a = 'b;''c'",
                "CREATE ROLE \"o;\"\"dd\"",
                "DO $f$ a; b $f$",
                "ALTER ROLE r SET x TO E'a\\';b'",
            ]
        );
        let names = statements(sql)[1].names_after("ROLE").join("|");
        assert_eq!(names, "o;\"dd");
        assert!(statements(" -- nothing\n;;").is_empty());
        // A text that breaks off ends with itself.
        for cut in ["'a", "\"a", "$a$ b", "E'a\\", "$"] {
            assert_eq!(statements(cut)[0].sql, cut);
        }
    }

    #[test]
    fn names_are_found_after_their_keyword() {
        for (sql, keyword, names) in [
            (
                "GRANT SELECT ON TABLE public.\"to\" TO readers",
                "TO",
                &["readers"][..],
            ),
            (
                "CREATE POLICY p ON public.t FOR SELECT TO a, \"b c\" USING (true)",
                "TO",
                &["a", "b c"],
            ),
            ("GRANT a TO b WITH INHERIT TRUE", "GRANT", &["a"]),
            ("ALTER ROLE é SET a TO '1'", "ROLE", &["é"]),
            ("SET a = 1", "TO", &[]),
        ] {
            assert_eq!(statements(sql)[0].names_after(keyword), names, "{sql}");
        }
    }

    #[test]
    fn another_database_takes_the_place_of_the_dumped_one() {
        for (sql, replaced) in [
            (
                "ALTER DATABASE app SET x TO 'DATABASE app'",
                "ALTER DATABASE \"n\"\"ew\" SET x TO 'DATABASE app'",
            ),
            (
                "ALTER ROLE app IN DATABASE \"app\" SET x TO '1'",
                "ALTER ROLE app IN DATABASE \"n\"\"ew\" SET x TO '1'",
            ),
            (
                "GRANT ALL ON DATABASE other TO app",
                "GRANT ALL ON DATABASE other TO app",
            ),
        ] {
            assert_eq!(statements(sql)[0].with_database("app", "n\"ew"), replaced);
        }
    }

    #[test]
    fn tables_are_named_as_in_sql() {
        let named =
            |schema: Option<&str>, table: &str| Some((schema.map(str::to_owned), table.to_owned()));
        for (text, table) in [
            ("orders", named(None, "orders")),
            ("Shop.Orders", named(Some("shop"), "orders")),
            ("\"Odd \"\"s\"\"\".\"a.b\"", named(Some("Odd \"s\""), "a.b")),
            ("a.b.c", None),
            ("a b", None),
            ("", None),
        ] {
            assert_eq!(parse_table(text), table, "{text}");
        }
    }
}
