//! The files of TLS, with psql beside the probe: roots, revocation lists, client certificates; and a CA that is rotated.

use super::tls::assert_as_psql;
use super::*;

/// Which files are read, with a certificate for "database" below ca.crt: its own root is in the home directory at last.
pub(super) fn judge_files_as_psql(lab: &Lab) {
    lab.ok("cd /tmp && cat certs/san.crt >server.crt && cat certs/san.key >server.key");
    lab.sql("SELECT pg_reload_conf()");
    let uri = |flags: &str| format!("postgresql://postgres@database/postgres?{flags}");
    let good = uri("sslmode=verify-full&sslrootcert=/tmp/certs/ca.crt");
    eventually("the server shows san", SOON, || {
        let said = lab.sh_as_postgres(&format!(
            "PGPASSWORD=lab-password /usr/lib/postgresql/17/bin/psql -XwqAtc 'SELECT 1' '{good}'"
        ));
        (said.code == 0).then_some(())
    });
    let modes = [
        "disable",
        "allow",
        "prefer",
        "require",
        "verify-ca",
        "verify-full",
    ];
    let with = |flags: &str| {
        let uris = modes
            .iter()
            .map(|mode| uri(&format!("sslmode={mode}&{flags}")));
        uris.collect::<Vec<_>>()
    };
    let mut uris = vec![
        good.replace("database/", "/")
            .replace("?", "?hostaddr=127.0.0.1&"),
    ];
    for flags in [
        "",
        "sslrootcert=system",
        "sslrootcert=/tmp/certs/missing.crt",
        "sslrootcert=/tmp/certs/garbage",
        "sslrootcert=/tmp/certs/ca.crt&sslnegotiation=direct",
        "sslrootcert=/tmp/certs/ca.crt&ssl_min_protocol_version=TLSv1.3",
        "sslrootcert=/tmp/certs/ca.crt&ssl_max_protocol_version=TLSv1.1",
        "sslrootcert=/tmp/certs/ca.crt&channel_binding=require",
        "sslrootcert=/tmp/certs/ca.crt&sslcrl=/tmp/certs/none.crl",
        "sslrootcert=/tmp/certs/ca.crt&sslcert=/tmp/certs/missing.crt&sslkey=/tmp/certs/missing.key",
        "sslrootcert=/tmp/certs/ca.crt&sslcert=/tmp/certs/cn.crt&sslkey=/tmp/certs/cn.key",
        "sslrootcert=/tmp/certs/ca.crt&sslcert=/tmp/certs/cn.crt&sslkey=/tmp/certs/missing.key",
    ] {
        uris.extend(with(flags));
    }
    uris.push(uri("sslrootcert=system"));
    for auth in ["scram-sha-256", "md5", "!password,!md5", "!scram-sha-256"] {
        uris.push(uri(&format!("sslmode=require&require_auth={auth}")));
    }
    assert_as_psql(lab, "files", &uris);
    judge_revocation_as_psql(lab, &uri);
    judge_client_certificates_as_psql(lab, &uri);
    judge_rotation(lab);
    // The root is found at home, and is then checked in every mode.
    for root in ["ca.crt", "other.crt", "garbage"] {
        lab.ok(&format!(
            "install -D -m 0644 /tmp/certs/{root} /var/lib/postgresql/.postgresql/root.crt"
        ));
        assert_as_psql(lab, root, &with(""));
    }
    lab.ok("rm -r /var/lib/postgresql/.postgresql");
}

/// The server shows the certificate "san"; `revoked.crl` is of the same CA and names it.
fn judge_revocation_as_psql(lab: &Lab, uri: &impl Fn(&str) -> String) {
    let with = |lists: &str| {
        let root = "sslrootcert=/tmp/certs/ca.crt";
        let modes = ["prefer", "verify-full"].iter();
        let uris = modes.map(|mode| uri(&format!("sslmode={mode}&{root}&{lists}")));
        uris.collect::<Vec<_>>()
    };
    // The two that tell whether lists are read at all.
    assert_eq!(
        assert_as_psql(lab, "good", &with("sslcrl=/tmp/certs/good.crl")[1..]),
        (1, 0)
    );
    assert_eq!(
        assert_as_psql(lab, "revoked", &with("sslcrl=/tmp/certs/revoked.crl")[1..]),
        (0, 1)
    );
    let mut uris = Vec::new();
    for list in [
        "none-old",
        "good",
        "revoked",
        "both",
        "both-reversed",
        "two",
        "renewed",
        "of-other",
        "forged",
        "expired",
        "future",
        "critical",
        "users",
        "missing",
    ] {
        uris.extend(with(&format!("sslcrl=/tmp/certs/{list}.crl")));
    }
    for directory in ["crls-good", "crls-revoked", "crls-empty", "missing"] {
        uris.extend(with(&format!("sslcrldir=/tmp/certs/{directory}")));
    }
    uris.extend(with(
        "sslcrl=/tmp/certs/good.crl&sslcrldir=/tmp/certs/crls-revoked",
    ));
    assert_as_psql(lab, "revocation lists", &uris);
    // Stricter than libpq, which passes over a file that it cannot read.
    let garbage = format!(
        "--url '{}' --timeout 0",
        with("sslcrl=/tmp/certs/garbage")[1]
    );
    let said = lab.sh_as_postgres(&format!("PGPASSWORD=lab-password xdb wait {garbage}"));
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("revocation list"), "{said:?}");
}

/// pg_hba.conf demands a certificate of the name of the role.
fn judge_client_certificates_as_psql(lab: &Lab, uri: &impl Fn(&str) -> String) {
    const HBA: &str = "/var/lib/postgresql/17/main/pg_hba.conf";
    lab.ok("install -d -o postgres /tmp/own && cd /tmp/certs && cp client.crt client.key cn.crt cn.key self.crt self.key /tmp/own && chown postgres /tmp/own/*.key && chmod 0600 /tmp/own/*.key");
    lab.ok(&format!(
        "sed -i '1i hostssl all postgres 127.0.0.1/32 scram-sha-256 clientcert=verify-full' {HBA}"
    ));
    lab.sql("ALTER SYSTEM SET ssl_ca_file = '/tmp/certs/ca.crt'");
    lab.sql("SELECT pg_reload_conf()");
    let own = |name: &str| {
        uri(&format!(
            "sslmode=verify-full&sslrootcert=/tmp/certs/ca.crt&sslcert=/tmp/own/{name}.crt&sslkey=/tmp/own/{name}.key"
        ))
    };
    eventually("a certificate is demanded", SOON, || {
        let said = lab.sh_as_postgres(&format!(
            "PGPASSWORD=lab-password /usr/lib/postgresql/17/bin/psql -XwqAtc 'SELECT 1' '{}'",
            own("missing")
        ));
        said.stderr
            .contains("valid client certificate")
            .then_some(())
    });
    let uris = [
        own("client"),
        own("cn"),
        own("self"),
        own("missing"),
        own("client") + "&sslcertmode=disable",
        own("client") + "&sslcertmode=allow",
        own("client") + "&ssl_max_protocol_version=TLSv1.2",
    ];
    assert_eq!(assert_as_psql(lab, "client certificates", &uris), (3, 4));
    lab.ok(&format!("sed -i 1d {HBA}"));
    lab.sql("ALTER SYSTEM RESET ssl_ca_file");
    lab.sql("SELECT pg_reload_conf()");
}

/// The file of the CA is replaced while a probe waits.
fn judge_rotation(lab: &Lab) {
    lab.ok("cat /tmp/certs/other.crt >/tmp/rotated.crt && chmod 0644 /tmp/rotated.crt");
    let flags = "--host database --port 5432 --sslmode verify-full --sslrootcert /tmp/rotated.crt --timeout 60 --fail-fast-after 50";
    let background = waiting(lab, flags);
    eventually_says(lab, "certificate verify failed");
    lab.ok("cp /tmp/certs/ca.crt /tmp/rotated.new && chmod 0644 /tmp/rotated.new && mv /tmp/rotated.new /tmp/rotated.crt");
    Ended::of(background).assert_ready("the new CA is read");
}
