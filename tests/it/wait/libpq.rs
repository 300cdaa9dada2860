//! What an application's libpq accepts: connection strings, password files, several hosts and addresses. psql stands beside it.

use super::tls::assert_as_psql;
use super::*;

/// Role app, known to PostgreSQL alone, asked for its password over sockets too; a second socket directory.
fn libpq_lab() -> Lab {
    let lab = lab();
    lab.sql("CREATE ROLE app LOGIN PASSWORD 'lab-password'");
    lab.sql("CREATE DATABASE app OWNER app");
    lab.sql("CREATE DATABASE \"d b\"");
    lab.sql("ALTER SYSTEM SET listen_addresses = '127.0.0.1', '127.0.0.10'");
    lab.sql("ALTER SYSTEM SET unix_socket_directories = '/var/run/postgresql', '/tmp'");
    lab.ok(
        "sed -i '1i local all app scram-sha-256' /var/lib/postgresql/17/main/pg_hba.conf
        echo '127.0.0.1 management' >>/etc/hosts && sv restart postgres",
    );
    lab.ok("until psql -h /tmp -U postgres -c 'SELECT 1' >/dev/null 2>&1 || setpriv --reuid=postgres /usr/lib/postgresql/17/bin/psql -Xqh /tmp -c 'SELECT 1' >/dev/null 2>&1; do sleep 0.1; done");
    lab
}

const URIS: &str = "\
postgresql://app@management/app
postgres://app@management:5432/app
postgresql://app@management
postgresql://app@management/
postgresql://app@management?dbname=app
postgresql://app@management/app?
postgresql://app@/app?host=/var/run/postgresql
postgresql://app@/app?host=/tmp
postgresql://app@%2Ftmp/app
postgresql:///app?user=app&host=management
postgresql://app@:5432/app?host=management
postgresql://app@[::1]:5432/app
postgresql://app@management/d%20b
postgresql://app@management/d+b
postgresql://%61pp@management/app
postgresql://app@management/app?application_name=a%20b
postgresql://app@management/app?sslmode=prefer&gssencmode=disable
postgresql://app@management/app?gssencmode=sometimes
postgresql://app@management/app?keepalives=1&keepalives_idle=30&keepalives_interval=5&keepalives_count=3
postgresql://app@management/app?keepalives_idle=soon
postgresql://app@management/app?tcp_user_timeout=1000&connect_timeout=5
postgresql://app@management/app?connect_timeout=soon
postgresql://app@management/app?sslcert=/tmp/no.crt&sslkey=/tmp/no.key
postgresql://app@nowhere.invalid/app?hostaddr=127.0.0.1
postgresql://app@/app?hostaddr=127.0.0.1
postgresql://app@management/app?hostaddr=management
postgresql://app@management/app?sslmod=require
postgresql://app@management/app?sslmode
postgresql://app@management/app?a=b=c
postgresql://app@management/app?SSLMODE=prefer
postgresql://app@management/%zz
postgresql://app@management/app?ssl=true
postgresql://app@management/app?sslmode=
postgresql://app@management/app?require_auth=
postgresql://app@management/app?connect_timeout=
postgresql://app@management/app?channel_binding=
postgresql://app@management/app?ssl_min_protocol_version=
postgresql://app@management/app?user=
postgresql://app@management/app?options=-c%20geqo%3Doff
postgresql://app@management/app?options=-c%20no_such%3Doff
postgresql://app@management/app?channel_binding=require
postgresql://app@management/app?channel_binding=maybe
postgresql://app@management:99999/app
postgresql://app@management:0/app
postgresql://app@management:x/app
host=management user=app dbname=app
host = management user= app dbname ='app'
host=management user=app dbname='d b'
host=management user=app dbname=d\\ b
host=management user=app
host=management user=app dbname='app
host=management user=app dbname
host=management user=app bogus=1
host=/tmp user=app dbname=app requiressl=0
host=management user=app dbname=app requiressl=1
postgresql://app@127.0.0.1:1,127.0.0.1:5432/app
postgresql://app@127.0.0.1:1,127.0.0.1/app
postgresql://app@nowhere.invalid,management/app
postgresql://app@/app?host=/nowhere,/tmp
postgresql://app@a,b,c/app?port=1,2
postgresql://app@a,b/app?hostaddr=127.0.0.1,127.0.0.1&port=1,5432
postgresql://app@a,b/app?hostaddr=127.0.0.1
postgresql://app@management,management/app?target_session_attrs=read-write
postgresql://app@management/app?target_session_attrs=primary
postgresql://app@management/app?target_session_attrs=any
postgresql://app@management/app?target_session_attrs=prefer-standby
postgresql://app@management/app?target_session_attrs=standby
postgresql://app@management/app?target_session_attrs=read-only
postgresql://app@management/app?target_session_attrs=leader
postgresql://app@management/app?load_balance_hosts=random
postgresql://app@management/app?sslnegotiation=direct
postgresql://app@management/app?require_auth=md5
postgresql://app@management/app?require_auth=none
postgresql://app@management/app?require_auth=md5,scram-sha-256
postgresql://app@management/app?require_auth=!scram-sha-256
postgresql://app@management/app?require_auth=!password,!md5
postgresql://app@management/app?require_auth=!none
postgresql://app@management/app?require_auth=md5,!none
postgresql://app@management/app?require_auth=scram
postgresql://postgres@/postgres?host=/var/run/postgresql&require_auth=none
postgresql://postgres@/postgres?host=/var/run/postgresql&require_auth=!none
postgresql://postgres@/postgres?host=/var/run/postgresql&require_auth=scram-sha-256
postgresql://app@/app?host=/tmp&require_auth=scram-sha-256,none
postgresql://app@/app?host=/tmp&requirepeer=postgres
postgresql://app@/app?host=/tmp&requirepeer=root
postgresql://app@/app?host=/tmp&requirepeer=nobody-at-all
postgresql://app@management/app?requirepeer=root
postgresql://app@management/app?sslsni=0
postgresql://app@a,b/app?hostaddr=::1,127.0.0.1
postgresql://app@management/app?require_auth=scram-sha-256&replication=&sslcompression=0&sslsni=1&krbsrvname=x";

/// Password files, `;` for a line break, each with the host that is connected to; the password is wrong where another matches.
const PASSWORD_FILES: &[(&str, &str)] = &[
    ("management:5432:app:app:lab-password", "management"),
    ("*:*:*:*:lab-password", "management"),
    ("#*:*:*:*:no;*:*:*:*:lab-password", "management"),
    (" #*:*:*:*:no;*:*:*:*:lab-password", "management"),
    ("*:*:*:*:lab-password\\r", "management"),
    ("*:*:*:*:lab-password\\r\\r", "management"),
    ("*:*:*:*:lab-password ", "management"),
    ("*:*:*:*:lab-password:more", "management"),
    ("*:*:*:*:lab\\\\-password", "management"),
    ("*:*:*:*:lab-password\\\\", "management"),
    ("m\\\\anagement:*:*:*:lab-password", "management"),
    ("\\\\*:*:*:*:no;*:*:*:*:lab-password", "management"),
    ("*:*:*:*:;*:*:*:*:lab-password", "management"),
    ("*:*:*:*:no;*:*:*:*:lab-password", "management"),
    ("*:*:*:other:no;*:*:*:*:lab-password", "management"),
    ("*:*:other:*:no;*:*:*:*:lab-password", "management"),
    ("*:5433:*:*:no;*:*:*:*:lab-password", "management"),
    ("*:05432:*:*:lab-password", "management"),
    ("MANAGEMENT:*:*:*:lab-password", "management"),
    ("*:*:*:app", "management"),
    ("127.0.0.1:*:*:*:lab-password", "management"),
    ("127.0.0.1:*:*:*:lab-password", "127.0.0.1"),
    ("\\xff:*:*:*:no;*:*:*:*:lab-password", "management"),
    ("localhost:*:*:*:lab-password", "/var/run/postgresql"),
    (
        "/var/run/postgresql:*:*:*:lab-password",
        "/var/run/postgresql",
    ),
    ("localhost:*:*:*:lab-password", "/tmp"),
    ("/tmp:*:*:*:lab-password", "/tmp"),
    ("localhost:*:*:*:lab-password", "/run/postgresql"),
    ("/run/postgresql:*:*:*:lab-password", "/run/postgresql"),
    (
        "management,x:*:*:*:no;management:*:*:*:lab-password",
        "management",
    ),
    (";;*:*:*:*:lab-password", "management"),
    ("", "management"),
];

#[test]
fn connection_strings_password_files_and_several_hosts_are_as_for_psql() {
    let lab = libpq_lab();
    let uris: Vec<String> = URIS.lines().map(str::to_owned).collect();
    let (took, refused) = assert_as_psql(&lab, "connection strings", &uris);
    assert!(took > 30 && refused > 20, "{took} {refused}");
    judge_password_files(&lab);
    judge_names_and_addresses(&lab);
}

fn judge_password_files(lab: &Lab) {
    let rows = PASSWORD_FILES.iter().map(|(file, host)| {
        let file = file.replace(';', "\\n");
        format!(
            "printf '{file}\\n' >/tmp/passfile; try 'host={host} user=app dbname=app passfile=/tmp/passfile'\n"
        )
    });
    // Files that are none, and one that others may read.
    let rows = rows.collect::<String>()
        + "try 'host=management user=app dbname=app passfile=/tmp/missing'
           try 'host=management user=app dbname=app passfile=/tmp'
           printf '*:*:*:*:lab-password\\n' >/tmp/passfile; chmod 0640 /tmp/passfile
           try 'host=management user=app dbname=app passfile=/tmp/passfile'
           try 'host=/tmp user=postgres dbname=app passfile=/tmp/passfile'";
    let script = format!(
        "export XDB_CONFIG=/dev/null; unset PGPASSWORD; umask 077; rm -f /tmp/passfile; took=0 refused=0
         try() {{
             psql=1 probe=1
             /usr/lib/postgresql/17/bin/psql -XAtwqc 'SELECT 1' \"$1\" >/tmp/psql.out 2>&1 </dev/null && psql=0
             xdb wait --timeout 0 --fail-fast-after 0 --url \"$1\" >/tmp/probe.out 2>&1 </dev/null && probe=0
             [ $psql = 0 ] && took=$((took+1)) || refused=$((refused+1))
             [ $psql = $probe ] || {{ echo \"DIFFER psql=$psql xdb=$probe $1\"; cat /tmp/passfile; head -n 3 /tmp/psql.out /tmp/probe.out; }}
         }}
         {rows}
         echo took=$took refused=$refused"
    );
    let said = lab.sh_as_postgres(&script);
    assert!(!said.stdout.contains("DIFFER"), "{}", said.stdout);
    let took = said
        .stdout
        .trim()
        .strip_prefix("took=")
        .and_then(|rest| rest.split_once(' '));
    let took: u32 = took
        .and_then(|(took, _)| took.parse().ok())
        .unwrap_or_default();
    assert!((10..30).contains(&took), "{said:?}");
}

/// Listens and lets no connection in, or takes connections and says nothing; then a nameserver that does not answer, and one that does.
const HALF_DEAD: &str = r#"
use IO::Socket::INET; use Socket;
sub server { IO::Socket::INET->new(LocalAddr => shift, LocalPort => 5432, Listen => shift, ReuseAddr => 1) or die $! }
my $full = server('127.0.0.9', 1); my @fill;
for (1 .. 8) { my $c = IO::Socket::INET->new(Proto => 'tcp', Type => SOCK_STREAM) or die $!; $c->blocking(0);
    connect($c, sockaddr_in(5432, inet_aton('127.0.0.9'))); push @fill, $c }
my $mute = server('127.0.0.8', 64);
my $deaf = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.8', LocalPort => 53) or die $!;
my $dns = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.7', LocalPort => 53) or die $!;
open my $ready, '>', '/tmp/half-dead'; close $ready;
while (1) {
    my $from = $dns->recv(my $question, 512) or next;
    my ($id) = unpack 'n', $question; my $rest = substr $question, 12;
    my $end = index($rest, "\0") + 5; my $asked = substr $rest, 0, $end;
    my $is_a = unpack('n', substr $asked, -4, 2) == 1;
    my $answer = pack('n6', $id, 0x8180, 1, $is_a ? 1 : 0, 0, 0) . $asked;
    $answer .= pack('nnnNnC4', 0xc00c, 1, 1, 0, 4, 127, 0, 0, 1) if $is_a;
    $dns->send($answer, 0, $from);
}"#;

fn judge_names_and_addresses(lab: &Lab) {
    lab.ok(&format!(
        "cat >/tmp/half-dead.pl <<'END'\n{HALF_DEAD}\nEND\n"
    ));
    lab.ok("setsid perl /tmp/half-dead.pl </dev/null >/dev/null 2>/tmp/half-dead.log &");
    eventually("the half-dead servers run", SOON, || {
        (lab.sh("test -e /tmp/half-dead").code == 0).then_some(())
    });
    // The faults took effect.
    for (address, limit) in [("127.0.0.9", 2), ("127.0.0.8", 2)] {
        let said = lab.sh_as_postgres(&format!(
            "PGCONNECT_TIMEOUT={limit} /usr/lib/postgresql/17/bin/psql -XwAtc 'SELECT 1' 'host={address} user=postgres dbname=postgres'"
        ));
        assert!(said.stderr.contains("timeout expired"), "{said:?}");
    }
    lab.ok("printf '127.0.0.9 full\\n127.0.0.10 full\\n127.0.0.8 mute\\n127.0.0.10 mute\\n' >>/etc/hosts");
    for host in ["full", "mute", "127.0.0.9,127.0.0.1", "127.0.0.8,127.0.0.1"] {
        let first = lab.ok(&format!(
            "getent ahosts {} | head -n 1",
            host.split(',').next().unwrap_or(host)
        ));
        assert!(
            first.starts_with("127.0.0.8 ") || first.starts_with("127.0.0.9 "),
            "{host}: {first}"
        );
        // Within one attempt.
        wait(
            lab,
            &format!("--url postgresql://postgres@{host}/postgres --timeout 0"),
        )
        .assert_ready(host);
    }
    lab.ok("cp /etc/resolv.conf /tmp/resolv.conf && printf 'nameserver 127.0.0.8\\nnameserver 127.0.0.7\\n' >/etc/resolv.conf");
    let begin = Instant::now();
    let found = lab.ok("getent ahostsv4 database.example.test");
    assert!(found.starts_with("127.0.0.1 "), "{found}");
    assert!(begin.elapsed() >= secs(5), "the first nameserver is deaf");
    let ended = wait(
        lab,
        "--url postgresql://postgres@database.example.test/postgres --timeout 40",
    );
    ended.assert_ready("the second nameserver answers after an attempt's deadline");
    ended.assert_says("was being looked up");
    lab.ok("cat /tmp/resolv.conf >/etc/resolv.conf");
}
