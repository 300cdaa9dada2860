//! Accounts of this machine, as passwd(5) lists them.

/// The name of the account `uid` in the text of /etc/passwd.
pub fn account_name(uid: u32, passwd: &str) -> Option<String> {
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
        assert_eq!(account_name(0, passwd).as_deref(), Some("root"));
        assert_eq!(account_name(104, passwd).as_deref(), Some("postgres"));
        assert_eq!(account_name(10, passwd), None);
    }
}
