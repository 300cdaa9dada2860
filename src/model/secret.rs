//! Text that may hold a password or a private key.

/// Whether `text` may hold a secret, so that no message may show it: a URI with a login, `password=…`, or an identity of age.
pub fn may_hold_password(text: &str) -> bool {
    let address = text.split_once("://").map_or(text, |(_, address)| address);
    let login = address.rsplit_once('@').map(|(login, _)| login);
    let has_login = login.is_some_and(|login| login.contains(':'));
    let lower = text.to_ascii_lowercase();
    let is_assigned = |word: &&str| {
        let mut behind = lower.split(*word).skip(1);
        behind.any(|rest| rest.trim_start().starts_with('='))
    };
    let is_identity = lower.contains("age-secret-key-");
    has_login || is_identity || ["password", "passwd", "pwd"].iter().any(is_assigned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_and_an_assignment_may_hold_a_password() {
        for (text, may) in [
            ("postgresql://app:hush@management/app", true),
            ("mysql://app:hush@management", true),
            ("app:hush@management", true),
            ("postgresql://app:hu@sh@management", true),
            ("postgresql://app@management?password=hush", true),
            ("host=a password = hush", true),
            ("host=a PASSWORD=hush", true),
            ("--password=hush", true),
            ("--password-file /run/x 'user=password password=hush'", true),
            ("age-secret-key-1abc", true),
            ("/x AGE-SECRET-KEY-PQ-1ABC", true),
            ("age1abc", false),
            ("postgresql://app@management:5432/app", false),
            ("management", false),
            ("::1", false),
            ("management:5432", false),
            ("a@b", false),
            ("--password-file", false),
            ("--password-file=/run/x", false),
            ("", false),
        ] {
            assert_eq!(may_hold_password(text), may, "{text}");
        }
    }
}
