//! Who runs a verb, for what is kept of a person's decision.

use std::env;
use std::fs;

/// `given`, else who logged in before sudo, else the account that runs this.
pub fn name(given: Option<String>) -> String {
    let uid = rustix::process::getuid().as_raw();
    let of_account = || account(uid, &fs::read_to_string("/etc/passwd").unwrap_or_default());
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    given
        .or_else(|| set("SUDO_USER"))
        .or_else(of_account)
        .or_else(|| set("LOGNAME"))
        .unwrap_or_else(|| format!("uid {uid}"))
}

/// The name of the account `uid` in the text of /etc/passwd.
fn account(uid: u32, passwd: &str) -> Option<String> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_found_by_its_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\npostgres:x:104:106::/var/lib/postgresql:/bin/bash\n";
        assert_eq!(account(0, passwd).as_deref(), Some("root"));
        assert_eq!(account(104, passwd).as_deref(), Some("postgres"));
        assert_eq!(account(10, passwd), None);
    }
}
