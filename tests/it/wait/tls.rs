//! `sslmode`, from PgBouncer that demands TLS to certificates of a stranger.

use super::*;

/// A CA in /tmp/ca.crt, a stranger's in /tmp/other.crt, and a certificate for the name "database".
fn certificates(lab: &Lab) {
    lab.ok(r#"cd /tmp && set -e
        for ca in ca other; do
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
                -subj "/CN=$ca" -keyout $ca.key -out $ca.crt 2>/dev/null
        done
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=database \
            -keyout server.key -out server.csr 2>/dev/null
        echo 'subjectAltName = DNS:database' >extensions
        openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 \
            -extfile extensions -out server.crt 2>/dev/null
        chown postgres server.key && chmod 0600 server.key && chmod 0644 ./*.crt
        echo '127.0.0.1 database stranger' >>/etc/hosts"#);
}

/// The outcome of each mode where TLS is demanded with a certificate for "database".
fn judge_modes(lab: &Lab, port: u16) {
    let end = |host: &str, flags: &str| {
        let flags = format!("--host {host} --port {port} --timeout 20 --fail-fast-after 0 {flags}");
        wait(lab, &flags)
    };
    for (host, flags) in [
        ("database", ""),
        ("database", "--sslmode allow"),
        ("stranger", "--sslmode require"),
        ("stranger", "--sslmode verify-ca --sslrootcert /tmp/ca.crt"),
        (
            "database",
            "--sslmode verify-full --sslrootcert /tmp/ca.crt",
        ),
    ] {
        end(host, flags).assert_ready(&format!("{host}:{port} {flags}"));
    }
    for (host, flags, reason) in [
        (
            "stranger",
            "--sslmode verify-full --sslrootcert /tmp/ca.crt",
            "does not match host name",
        ),
        (
            "database",
            "--sslmode verify-full --sslrootcert /tmp/other.crt",
            "certificate verify failed",
        ),
        (
            "database",
            "--sslmode verify-ca --sslrootcert /tmp/other.crt",
            "certificate verify failed",
        ),
        // As for libpq, a CA makes of require verify-ca.
        (
            "database",
            "--sslmode require --sslrootcert /tmp/other.crt",
            "certificate verify failed",
        ),
    ] {
        let ended = end(host, flags);
        ended.assert_failed(flags, 3, "login", secs(0));
        ended.assert_says(reason);
    }
}

#[test]
fn tls_that_pgbouncer_demands() {
    let lab = lab();
    let ended = wait(
        &lab,
        &format!("{WAY} --sslmode require --fail-fast-after 2"),
    );
    ended.assert_failed("TLS refused", 3, "login", secs(2));
    ended.assert_says("server does not support TLS");

    certificates(&lab);
    lab.ok(r#"echo 'client_tls_sslmode = require
client_tls_key_file = /tmp/server.key
client_tls_cert_file = /tmp/server.crt' >>/etc/xdb-lab/pgbouncer.ini && sv restart pgbouncer"#);
    wait(&lab, &format!("{WAY} --timeout 20")).assert_ready("prefer is the default");
    let ended = wait(
        &lab,
        &format!("{WAY} --sslmode disable --fail-fast-after 2"),
    );
    ended.assert_failed("TLS demanded", 3, "login", secs(2));
    ended.assert_says("SSL required (08P01)");
    judge_modes(&lab, 15432);
}

#[test]
fn tls_that_postgresql_demands() {
    let lab = lab();
    certificates(&lab);
    lab.sql("ALTER SYSTEM SET ssl_cert_file = '/tmp/server.crt'");
    lab.sql("ALTER SYSTEM SET ssl_key_file = '/tmp/server.key'");
    lab.sql("ALTER SYSTEM SET ssl = on");
    lab.ok("sed -i 's/^host /hostssl /' /var/lib/postgresql/17/main/pg_hba.conf");
    lab.sql("SELECT pg_reload_conf()");
    let direct = "--host 127.0.0.1 --port 5432";
    eventually("PostgreSQL demands TLS", SOON, || {
        let ended = wait(
            &lab,
            &format!("{direct} --sslmode disable --fail-fast-after 0"),
        );
        (ended.said.code == 3).then(|| {
            ended.assert_failed("TLS demanded", 3, "login", secs(0));
            ended.assert_says("no pg_hba.conf entry");
        })
    });
    judge_modes(&lab, 5432);
    judge_own_sessions(&lab);
    judge_certificates_as_psql(&lab);
    // Where TLS is offered and refused by pg_hba.conf, prefer comes without, as libpq does.
    lab.ok("sed -i 's/^hostssl /hostnossl /' /var/lib/postgresql/17/main/pg_hba.conf");
    lab.sql("SELECT pg_reload_conf()");
    wait(&lab, &format!("{direct} --timeout 20")).assert_ready("without TLS after all");
}

/// xdb itself, and pg_dump, log in over TCP where pg_hba.conf has `hostssl` only.
fn judge_own_sessions(lab: &Lab) {
    let push = |settings: &str| {
        lab.config(&format!("[postgres]\n{settings}"));
        lab.xdb(&["dump", "push"])
    };
    for settings in [
        "",
        "sslmode = \"require\"",
        "host = \"database\"\nsslmode = \"verify-full\"\nsslrootcert = \"/tmp/ca.crt\"",
    ] {
        let pushed = push(settings);
        assert_eq!(pushed.code, 0, "{settings}: {pushed:?}");
    }
    for (settings, hint) in [
        ("sslmode = \"disable\"", "postgres.sslmode"),
        (
            "sslmode = \"verify-ca\"\nsslrootcert = \"/tmp/other.crt\"",
            "postgres.sslrootcert",
        ),
        (
            "host = \"stranger\"\nsslmode = \"verify-full\"\nsslrootcert = \"/tmp/ca.crt\"",
            "postgres.sslrootcert",
        ),
    ] {
        push(settings).failed(4, hint);
    }
    lab.config("");
}

/// Certificates in /tmp/certs, each named after what is special about it.
const CERTIFICATES: &str = r#"set -e; mkdir -p /tmp/certs && cd /tmp/certs
printf '[req]\ndistinguished_name=dn\n[dn]\n' >cnf
printf 'certificate\n' >garbage
make() { local name=$1; shift; openssl req -x509 -config cnf -nodes -keyout $name.key -out $name.crt "$@" 2>>log || { tail -n 3 log; exit 1; }; }
ec="-newkey ec -pkeyopt ec_paramgen_curve:P-256" days="-days 2" ca="-addext basicConstraints=critical,CA:TRUE"
by="-CA ca.crt -CAkey ca.key" name="-subj /CN=database"
make ca $ec $days $ca -subj /CN=ca
make other $ec $days $ca -subj /CN=other
make self $ec $days $ca $name
make self-v1 $ec $days -x509v1 $name
make self-rsa -newkey rsa:2048 $days $ca $name
make v1 $ec $days $by -x509v1 $name
make v1-rsa -newkey rsa:2048 $days $by -x509v1 $name
make cn $ec $days $by $name
make san $ec $days $by -subj / -addext subjectAltName=DNS:database
make other-san $ec $days $by $name -addext subjectAltName=DNS:other
make wildcard $ec $days $by -subj /CN=x -addext 'subjectAltName=DNS:*.example.test'
make ip-san $ec $days $by $name -addext subjectAltName=IP:127.0.0.1
make other-ip-san $ec $days $by -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.2
make ip-cn $ec $days $by -subj /CN=127.0.0.1
make expired $ec -not_before 20200101000000Z -not_after 20210101000000Z $by $name
make future $ec -not_before 20900101000000Z -not_after 20910101000000Z $by $name
make for-clients $ec $days $by $name -addext extendedKeyUsage=clientAuth
make for-servers $ec $days $by $name -addext extendedKeyUsage=serverAuth,clientAuth -addext keyUsage=digitalSignature
make netscape-client $ec $days $by $name -addext nsCertType=client
make netscape-server $ec $days $by $name -addext nsCertType=server
make for-signing $ec $days $by $name -addext keyUsage=keyCertSign
make ca-leaf $ec $days $by $ca $name
make critical $ec $days $by $name -addext 1.2.3.4=critical,ASN1:UTF8String:x
make below-other $ec $days -CA other.crt -CAkey other.key $name
make middle $ec $days $by $ca -subj /CN=middle
make no-ca $ec $days $by -addext basicConstraints=CA:FALSE -subj /CN=no-ca
make chained $ec $days -CA middle.crt -CAkey middle.key $name
cp chained.key lonely.key; cp chained.crt lonely.crt; cat middle.crt >>chained.crt
make below-leaf $ec $days -CA no-ca.crt -CAkey no-ca.key $name
cat no-ca.crt >>below-leaf.crt
make old-root $ec -not_before 20200101000000Z -not_after 20210101000000Z $ca -subj /CN=old
make below-old $ec $days -CA old-root.crt -CAkey old-root.key $name
make ku-ca $ec $days $by -addext keyUsage=keyCertSign -subj /CN=ku-ca
make below-ku $ec $days -CA ku-ca.crt -CAkey ku-ca.key $name
cat ku-ca.crt >>below-ku.crt
make short-ca $ec $days $by -addext basicConstraints=critical,CA:TRUE,pathlen:0 -subj /CN=short-ca
make below-short $ec $days -CA short-ca.crt -CAkey short-ca.key $name
cat short-ca.crt >>below-short.crt
make deep-ca $ec $days -CA short-ca.crt -CAkey short-ca.key $ca -subj /CN=deep-ca
make below-deep $ec $days -CA deep-ca.crt -CAkey deep-ca.key $name
cat deep-ca.crt short-ca.crt >>below-deep.crt
make bound-ca $ec $days $by $ca -subj /CN=bound-ca -addext 'nameConstraints=critical,permitted;DNS:example.test,excluded;DNS:a.db.example.test,permitted;IP:127.0.0.0/255.0.0.0'
below="-CA bound-ca.crt -CAkey bound-ca.key"
make bound-san $ec $days $below -subj /CN=x -addext subjectAltName=DNS:db.example.test
make bound-other-san $ec $days $below -subj /CN=x -addext subjectAltName=DNS:database
make bound-excluded-san $ec $days $below -subj /CN=x -addext subjectAltName=DNS:a.db.example.test
make bound-ip-san $ec $days $below -subj /CN=x -addext subjectAltName=IP:127.0.0.1
make bound-cn $ec $days $below -subj /CN=db.example.test
make bound-other-cn $ec $days $below -subj /CN=db.other.test
make bound-label $ec $days $below $name
for leaf in san other-san excluded-san ip-san cn other-cn label; do cat bound-ca.crt >>bound-$leaf.crt; done
make client $ec $days $by -subj /CN=postgres
make false-ca $ec $days $ca -subj /CN=ca
printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=2\n[akid]\nauthorityKeyIdentifier=keyid\n[critical]\n1.2.3.4=critical,ASN1:UTF8String:x\n[users]\nissuingDistributionPoint=critical,onlyuser:TRUE\n' >ca.cnf
: >index
crl() { local name=$1 by=$2; shift 2; openssl ca -config ca.cnf -gencrl -keyfile $by.key -cert $by.crt -out $name.crl "$@" 2>>log || { tail -n 3 log; exit 1; }; }
at() { date -u -d "$1" +%Y%m%d%H%M%SZ; }
crl none-old ca -crl_lastupdate $(at '-1 hour') -crl_nextupdate $(at '+1 day')
crl of-other other
crl forged false-ca
crl expired ca -crl_lastupdate 20200101000000Z -crl_nextupdate 20210101000000Z
crl future ca -crl_lastupdate $(at '+1 hour') -crl_nextupdate $(at '+1 day')
crl critical ca -crlexts critical
crl users ca -crlexts users
openssl ca -config ca.cnf -keyfile ca.key -cert ca.crt -revoke cn.crt 2>>log
# Older than the list that follows, by more than the second that both may be made in.
crl good ca -crlexts akid -crl_lastupdate $(at '-1 minute') -crl_nextupdate $(at '+1 day')
openssl ca -config ca.cnf -keyfile ca.key -cert ca.crt -revoke san.crt 2>>log
crl revoked ca
cat none-old.crl revoked.crl >both.crl; cat revoked.crl none-old.crl >both-reversed.crl
cat good.crl of-other.crl >two.crl; cat expired.crl good.crl >renewed.crl
mkdir crls-good crls-revoked crls-empty; cp good.crl crls-good/; cp revoked.crl crls-revoked/
for directory in crls-*; do openssl rehash $directory; done
chown postgres *.key && chmod 0600 *.key && chmod 0644 *.crt
echo '127.0.0.1 db.example.test a.db.example.test db.other.test' >>/etc/hosts
for name in $(ls *.crt | grep -v -e '^ca.crt' -e '^other.crt' -e middle -e '-ca.crt' -e '^client' -e old-root); do echo ${name%.crt}; done
"#;

/// Tries each `URI` of its input with psql and with the probe; prints the URI where they disagree, and counts what psql took.
const BESIDE_PSQL: &str = r#"export PGPASSWORD=lab-password; took=0 refused=0
while read -r uri; do
    psql=1 probe=1
    timeout 10 /usr/lib/postgresql/17/bin/psql -XAtwqc 'SELECT 1' "$uri" >/tmp/psql.out 2>&1 </dev/null && psql=0
    xdb wait --timeout 0 --fail-fast-after 0 --url "$uri" >/tmp/probe.out 2>&1 </dev/null && probe=0
    [ $psql = 0 ] && took=$((took+1)) || refused=$((refused+1))
    [ $psql = $probe ] || { echo "DIFFER psql=$psql xdb=$probe $uri"; head -n 3 /tmp/psql.out /tmp/probe.out; }
done <<'END'
ROWS
END
echo "took=$took refused=$refused""#;

/// How many of `uris` psql took and refused, and where the probe disagrees.
fn beside_psql(lab: &Lab, uris: &[String]) -> ((u32, u32), String) {
    let said = lab.sh_as_postgres(&BESIDE_PSQL.replace("ROWS", &uris.join("\n")));
    let (differ, counted) = said
        .stdout
        .split_once("took=")
        .unwrap_or_else(|| panic!("{said:?}"));
    let counted = counted.trim().split_once(" refused=");
    let counted =
        counted.and_then(|(took, refused)| Some((took.parse().ok()?, refused.parse().ok()?)));
    (
        counted.unwrap_or_else(|| panic!("{said:?}")),
        differ.to_owned(),
    )
}

/// Asserts that psql and the probe agree on each of `uris`; gives how many psql took and refused.
pub(super) fn assert_as_psql(lab: &Lab, what: &str, uris: &[String]) -> (u32, u32) {
    let (counted, differ) = beside_psql(lab, uris);
    assert_eq!(differ, "", "{what}");
    counted
}

/// The server's certificate is each of the table's in turn.
fn judge_certificates_as_psql(lab: &Lab) {
    let made = lab.sh(CERTIFICATES);
    assert_eq!(made.code, 0, "{made:?}");
    let names: Vec<&str> = made.stdout.lines().collect();
    assert!(names.len() > 20, "{names:?}");
    let (mut took, mut refused, mut differ) = (0, 0, String::new());
    for name in names {
        lab.ok(&format!(
            "cd /tmp && cat certs/{name}.crt >server.crt && cat certs/{name}.key >server.key"
        ));
        lab.sql("SELECT pg_reload_conf()");
        eventually(&format!("the server shows {name}"), SOON, || {
            let shown = "openssl s_client -starttls postgres -connect 127.0.0.1:5432 </dev/null 2>/dev/null | openssl x509 -noout -fingerprint";
            let wanted = format!("openssl x509 -noout -fingerprint -in /tmp/certs/{name}.crt");
            let said = lab.sh(&format!("[ \"$({shown})\" = \"$({wanted})\" ]"));
            (said.code == 0).then_some(())
        });
        let uri = |host: &str, flags: &str| {
            format!("postgresql://postgres@{host}/postgres?hostaddr=127.0.0.1&{flags}")
        };
        let mut uris = Vec::new();
        for root in ["ca", name, "middle", "old-root"] {
            let root = format!("sslrootcert=/tmp/certs/{root}.crt");
            uris.push(uri("database", &format!("sslmode=verify-ca&{root}")));
        }
        let of_name = matches!(name, "cn" | "san" | "wildcard")
            || name.contains("-san")
            || name.contains("ip-")
            || name.starts_with("bound-");
        let hosts = match of_name {
            true => &[
                "database",
                "other",
                "127.0.0.1",
                "db.example.test",
                "a.db.example.test",
                "db.other.test",
            ][..],
            false => &["database"],
        };
        for host in hosts {
            uris.push(uri(
                host,
                "sslmode=verify-full&sslrootcert=/tmp/certs/ca.crt",
            ));
        }
        if matches!(name, "self" | "v1" | "v1-rsa" | "expired" | "below-other") {
            for mode in ["disable", "allow", "prefer", "require"] {
                for root in ["ca.crt", "missing.crt"] {
                    let root = format!("sslrootcert=/tmp/certs/{root}");
                    uris.push(uri("database", &format!("sslmode={mode}&{root}")));
                }
            }
            uris.push(uri(
                "database",
                "sslmode=require&ssl_max_protocol_version=TLSv1.2",
            ));
            uris.push(uri("database", "sslmode=require&sslnegotiation=direct"));
        }
        let (counted, differences) = beside_psql(lab, &uris);
        took += counted.0;
        refused += counted.1;
        differ += &differences;
    }
    assert_eq!(differ, "");
    assert!(took > 50 && refused > 80, "{took} {refused}");
    tls_files::judge_files_as_psql(lab);
}
