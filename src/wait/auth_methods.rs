//! libpq's `require_auth` (manual, "Parameter Key Words"): the authentication methods that a server may use. Pure.

/// Codes of the protocol's Authentication messages, each with libpq's words for it.
const REQUESTS: &[(u32, &str)] = &[
    (PASSWORD, "server requested a cleartext password"),
    (MD5, "server requested a hashed password"),
    (7, "server requested GSSAPI authentication"),
    (8, "server requested GSSAPI authentication"),
    (9, "server requested SSPI authentication"),
    (10, "server requested SASL authentication"),
    (11, "server requested SASL authentication"),
    (SASL_FINAL, "server requested SASL authentication"),
];
const OK: u32 = 0;
const PASSWORD: u32 = 3;
const MD5: u32 = 5;
const SASL_FINAL: u32 = 12;

/// What the names of a list stand for.
const METHODS: &[(&str, &[u32])] = &[
    ("password", &[PASSWORD]),
    ("md5", &[MD5]),
    ("gss", &[7, 8]),
    ("sspi", &[9, 8]),
    ("scram-sha-256", &[10, 11, SASL_FINAL]),
];

/// The methods that a list allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuthMethods {
    /// As it was written.
    text: String,
    allowed: Vec<u32>,
    /// A server that asks for nothing is refused.
    must_ask: bool,
}

impl AuthMethods {
    /// Reads `text`, names with commas between; with a `!` before each of them, those that are not allowed.
    ///
    /// # Errors
    /// In words, when libpq would refuse it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("no server can meet an empty require_auth".to_owned());
        }
        let negated = text.starts_with('!');
        let all = REQUESTS.iter().map(|(code, _)| *code);
        let mut methods = Self {
            text: text.to_owned(),
            allowed: all.filter(|_| negated).collect(),
            must_ask: !negated,
        };
        for name in text.split(',') {
            let (name, has_mark) = match name.strip_prefix('!') {
                Some(name) => (name, true),
                None => (name, false),
            };
            if has_mark != negated {
                return Err("require_auth mixes methods with and without \"!\"".to_owned());
            }
            if !methods.take(name, negated)? {
                return Err("require_auth names a method twice".to_owned());
            }
        }
        Ok(methods)
    }

    /// Whether `name` changed anything.
    fn take(&mut self, name: &str, negated: bool) -> Result<bool, String> {
        if name == "none" {
            let changed = self.must_ask != negated;
            self.must_ask = negated;
            return Ok(changed);
        }
        let known = METHODS.iter().find(|(method, _)| *method == name);
        let (_, codes) = known.ok_or_else(|| {
            let names = METHODS.iter().map(|(method, _)| *method);
            let names: Vec<&str> = names.chain(["none"]).collect();
            format!(
                "each method of require_auth must be one of {}",
                names.join(", ")
            )
        })?;
        let before = self.allowed.len();
        if negated {
            self.allowed.retain(|code| !codes.contains(code));
        } else {
            let new = codes.iter().filter(|code| !self.allowed.contains(code));
            self.allowed.extend(new.copied().collect::<Vec<_>>());
        }
        Ok(self.allowed.len() != before)
    }

    /// Judges one Authentication message (`check_expected_areq`); `has_proven`: an earlier exchange has ended.
    ///
    /// # Errors
    /// In libpq's words, when it is not allowed.
    pub(super) fn judge(&self, code: u32, has_proven: bool) -> Result<(), String> {
        let reason = match code {
            OK if has_proven || !self.must_ask => return Ok(()),
            OK => "server did not complete authentication",
            code if self.allowed.contains(&code) => return Ok(()),
            code => {
                let known = REQUESTS.iter().find(|(known, _)| *known == code);
                known.map_or("server requested an unknown authentication type", |it| it.1)
            }
        };
        let text = &self.text;
        Err(format!(
            "authentication method requirement \"{text}\" failed: {reason}"
        ))
    }
}

/// Whether the server knows who the client is once this message is answered.
pub(super) fn proves(code: u32) -> bool {
    matches!(code, PASSWORD | MD5 | SASL_FINAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_as_libpq_does() {
        for (text, good) in [
            ("scram-sha-256", true),
            ("password,md5,gss,sspi,scram-sha-256,none", true),
            ("!password,!md5", true),
            ("!none", true),
            ("none", true),
            ("gss,sspi", true),
            ("", false),
            ("SCRAM-SHA-256", false),
            ("scram-sha-256, md5", false),
            ("md5,", false),
            ("md5,md5", false),
            ("none,none", false),
            ("!none,!none", false),
            ("!md5,!md5", false),
            ("md5,!password", false),
            ("!md5,password", false),
            ("!", false),
            ("!!md5", false),
        ] {
            assert_eq!(AuthMethods::parse(text).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn a_message_is_judged_by_the_list() {
        for (text, code, has_proven, good) in [
            ("scram-sha-256", 10, false, true),
            ("scram-sha-256", 12, false, true),
            ("scram-sha-256", 0, true, true),
            ("scram-sha-256", 0, false, false),
            ("scram-sha-256", 3, false, false),
            ("scram-sha-256", 5, false, false),
            ("scram-sha-256,none", 0, false, true),
            ("none", 0, false, true),
            ("none", 10, false, false),
            ("!password", 3, false, false),
            ("!password", 5, false, true),
            ("!password", 0, false, true),
            ("!none", 0, false, false),
            ("!none", 3, false, true),
            ("md5", 2, false, false),
        ] {
            let methods = AuthMethods::parse(text).unwrap();
            let judged = methods.judge(code, has_proven);
            assert_eq!(judged.is_ok(), good, "{text} {code}: {judged:?}");
        }
    }
}
