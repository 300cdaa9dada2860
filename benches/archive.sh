#!/bin/bash
# Measures archiving beside its peers and prints tables; `./dev bench archive` runs it as root in a container of the lab,
# where nothing else runs. Peers that Debian packages are installed first.
# SEGMENTS, ROUNDS, LATENCIES (ms) and PEERS may be set; arguments pick the parts: one drain. Where another build of xdb is
# mounted as xdb-former, it is a peer, too.
set -euo pipefail
shopt -s extglob
segments=${SEGMENTS:-200} rounds=${ROUNDS:-3} latencies=${LATENCIES:-0 100}
data=/var/lib/postgresql/17/main
status=$data/pg_wal/archive_status
postgres() { setpriv --reuid=postgres --regid=postgres --init-groups env -C "$data" HOME=/var/lib/postgresql USER=postgres "$@"; }
sql() { postgres psql -XAtqc "$1"; }
setting() { sql "ALTER SYSTEM SET $1 = '$2'"; }
now() { date +%s%N; }
bench=/usr/lib/postgresql/17/bin/pgbench

# --- PostgreSQL with a backlog of real segments, that stay ---------------------------------------
until sql 'SELECT 1' >/dev/null 2>&1; do sleep 0.2; done
for each in max_wal_size=64GB wal_keep_size=64GB archive_timeout=0 archive_command= fsync=off synchronous_commit=off checkpoint_timeout=1d; do
    setting "${each%%=*}" "${each#*=}"
done
sql 'SELECT pg_reload_conf()' >/dev/null
postgres $bench -i -q -s 20 postgres >/dev/null 2>&1
until (($(find $status -name '*.ready' | wc -l) > segments)); do
    postgres $bench -n -c 4 -T 5 postgres >/dev/null 2>&1
    sql CHECKPOINT
done
mapfile -t list < <(find $status -name '*.ready' -printf '%f\n' | sort | sed 's/\.ready$//' | grep -E '^[0-9A-F]{24}$' | head -n "$segments")
# The rest is out of the way: nothing but the list is ever archived.
find $status -name '*.ready' -delete

# --- the peers -----------------------------------------------------------------------------------
export WALG_COMPRESSION_METHOD=lz4 WALG_PREVENT_WAL_OVERWRITE=true PGDATA=$data AWS_REGION=us-east-1 \
    AWS_ENDPOINT=http://127.0.0.1:7000 AWS_S3_FORCE_PATH_STYLE=true AWS_ACCESS_KEY_ID=lab AWS_SECRET_ACCESS_KEY=lab-secret-key
cat >/etc/xdb/xdb.toml <<'END'
[postgres]
host = "127.0.0.1"
password = "lab-password"
[redis]
url = "redis://127.0.0.1:6379"
password = "lab-password"
[s3]
region = "us-east-1"
endpoint = "http://127.0.0.1:7000"
force_path_style = true
access_key_id = "lab"
secret_access_key = "lab-secret-key"
[archive]
program = "walrus"
repository = "s3://walg-test/main/pg17"
[schedule]
base_backup = "0 0 1 1 *"
END
chown root:postgres /etc/xdb/xdb.toml
chmod 0640 /etc/xdb/xdb.toml

peers=(walrus xdb)
declare -A command=([walrus]='walrus daemon-client --socket /tmp/walrus.sock wal-push %f' [xdb]='xdb wal-push "%p"')
declare -A prefix=([walrus]=walrus [xdb]=main/pg17)
if command -v xdb-former >/dev/null; then
    peers+=(xdb-former) prefix[xdb-former]=main/pg17 command[xdb-former]='xdb-former wal-push "%p"'
fi
if command -v wal-g >/dev/null; then
    peers+=(wal-g) prefix[wal-g]=wal-g command[wal-g]='walrus daemon-client --socket /tmp/wal-g.sock wal-push %f'
fi
if [[ -n ${PEERS-} && $PEERS != *pgbackrest* && $PEERS != *barman* ]]; then
    :
elif apt-get -qq -o Acquire::Retries=3 update >/tmp/apt.log 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends pgbackrest barman-cli-cloud python3-boto3 openssl >/tmp/apt.log 2>&1; then
    peers+=(pgbackrest barman)
    prefix[pgbackrest]=pgbackrest/archive/main prefix[barman]=barman
    command[pgbackrest]='pgbackrest --stanza=main archive-push %p'
    command[barman]='barman-cloud-wal-archive --endpoint-url http://127.0.0.1:7000 s3://walg-test/barman main %p'
    # barman asks the AWS chain, and PostgreSQL's environment has no keys.
    install -d -o postgres -m 0700 /var/lib/postgresql/.aws
    printf '[default]\naws_access_key_id = lab\naws_secret_access_key = lab-secret-key\n' >/var/lib/postgresql/.aws/credentials
    printf '[default]\nregion = us-east-1\ns3 =\n  addressing_style = path\n' >/var/lib/postgresql/.aws/config
    chown postgres: /var/lib/postgresql/.aws/*
    # pgBackRest speaks TLS only: a second door of the same S3 server, behind a proxy of its own.
    openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=localhost -keyout /tmp/key.pem -out /tmp/cert.pem -days 2 2>/dev/null
    ROOT_ACCESS_KEY=lab ROOT_SECRET_KEY=lab-secret-key versitygw --port 127.0.0.1:7443 --cert /tmp/cert.pem --key /tmp/key.pem posix /srv/s3 >/tmp/s3-tls.log 2>&1 &
    curl -s -d '{"name":"tls","listen":"127.0.0.1:7444","upstream":"127.0.0.1:7443","enabled":true}' http://127.0.0.1:8474/proxies >/dev/null
    install -d -o postgres /var/spool/pgbackrest /var/log/pgbackrest
    cat >/etc/pgbackrest.conf <<END
[global]
repo1-type=s3
repo1-path=/pgbackrest
repo1-s3-bucket=walg-test
repo1-s3-endpoint=127.0.0.1
repo1-storage-port=7444
repo1-storage-verify-tls=n
repo1-s3-region=us-east-1
repo1-s3-uri-style=path
repo1-s3-key=lab
repo1-s3-key-secret=lab-secret-key
archive-async=y
spool-path=/var/spool/pgbackrest
process-max=4
compress-type=lz4
[main]
pg1-path=$data
END
else
    echo "pgBackRest and barman could not be installed: $(tail -n 1 /tmp/apt.log)"
fi

[[ -z ${PEERS-} ]] || read -ra peers <<<"$PEERS"

# What was stored must be uploaded again, not compared: the programs' memories end with them.
start() {
    case $1 in
    walrus | wal-g)
        WALG_S3_PREFIX=s3://walg-test/$1 env -u GOGC -u GOMEMLIMIT setpriv --reuid=postgres --regid=postgres --init-groups "$1" daemon "/tmp/$1.sock" >"/tmp/$1.log" 2>&1 &
        until [[ -S /tmp/$1.sock ]]; do sleep 0.05; done ;;
    xdb | xdb-former)
        # Neither shall find what the other one remembers.
        find /var/lib/xdb -mindepth 1 -delete
        env -u PGDATA -u AWS_ENDPOINT setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/var/lib/postgresql "$1" daemon >/tmp/xdb.log 2>&1 &
        # Until it knows its role, which it asks each second, and has looked at the bucket.
        until postgres perl -MIO::Socket::UNIX -e '$s = IO::Socket::UNIX->new("/var/lib/xdb/archive.sock") or exit 1; syswrite $s, "C\0\3"; sysread $s, $a, 1; exit($a ne "O")'; do sleep 0.2; done
        sleep 3 ;;
    pgbackrest) postgres pgbackrest --stanza=main stanza-create >/tmp/pgbackrest.log 2>&1 || { tail -n 5 /tmp/pgbackrest.log; return 1; } ;;
    esac
}
stop() {
    pkill -x "$1" || true
    while pgrep -x "$1" >/dev/null; do sleep 0.05; done
    rm -rf "/srv/s3/walg-test/${prefix[$1]:?}" "/srv/s3/walg-test/$1" /var/spool/pgbackrest/archive "/tmp/$1.sock"
}
# Without latency there is no proxy in the way, whose processor time would be counted as the peers'.
latency() {
    local http=7070 tls=7443 proxy
    (($1 == 0)) || http=7000 tls=7444
    export AWS_ENDPOINT=http://127.0.0.1:$http
    command[barman]=${command[barman]-}; command[barman]=${command[barman]/127.0.0.1:+([0-9])/127.0.0.1:$http}
    sed -i "s|^endpoint = .*|endpoint = \"$AWS_ENDPOINT\"|" /etc/xdb/xdb.toml
    [[ ! -e /etc/pgbackrest.conf ]] || sed -i "s|^repo1-storage-port=.*|repo1-storage-port=$tls|" /etc/pgbackrest.conf
    for proxy in s3 tls; do
        curl -s -X DELETE "http://127.0.0.1:8474/proxies/$proxy/toxics/latency" >/dev/null || true
        (($1 == 0)) || curl -s -d '{"name":"latency","type":"latency","attributes":{"latency":'"$1"'}}' "http://127.0.0.1:8474/proxies/$proxy/toxics" >/dev/null
    done
}
# Waits until PostgreSQL has marked FILE as done; prints the peak resident memory, in MB, of everything the peer runs. One
# process that seldom looks: what it used of the processors the peers would lack.
resident() { # PEER FILE
    perl -e '
        my ($peer, $file) = @ARGV;
        my ($peak, $looks, $limit) = (0, 0, time + 600);
        while (-e $file) {
            if ($looks++ % 10 == 0) {
                my $sum = 0;
                for my $stat (glob "/proc/[0-9]*/stat") {
                    open my $in, "<", $stat or next;
                    my ($name, $rest) = (<$in> // next) =~ /\((.*)\) \S (.*)/ or next;
                    $sum += (split / /, $rest)[20] * 4096 if $name =~ /^$peer/ || $peer =~ /^xdb/ && $name eq "walrus";
                }
                $peak = $sum if $sum > $peak;
            }
            if (time > $limit) { warn "$peer did not end\n"; last }
            select undef, undef, undef, 0.05;
        }
        printf "%d", $peak / 1e6' "$1" "$2"
}

# Processor time of each program so far, its children's included, as lines "program milliseconds".
processors() {
    # Some are gone before they are read.
    { cat /proc/[0-9]*/stat 2>/dev/null || true; } | awk '{
        match($0, /\(.*\)/); name = substr($0, RSTART + 1, RLENGTH - 2); gsub(/ /, "_", name); $0 = substr($0, RSTART + RLENGTH + 1)
        sum[name] += ($12 + $13 + $14 + $15) * 10
    } END {for (name in sum) print name, sum[name]}' | sort
}

drain() { # PEER LATENCY: prints milliseconds, MB
    setting archive_command '' && sql 'SELECT pg_reload_conf()' >/dev/null
    latency "$2"
    start "$1"
    local name last=$status/${list[-1]}.ready
    for name in "${list[@]}"; do mv "$status/$name.done" "$status/$name.ready" 2>/dev/null || postgres touch "$status/$name.ready"; done
    sleep 2
    setting archive_command "${command[$1]}"
    processors >/tmp/processors
    local begun; begun=$(now)
    sql 'SELECT pg_reload_conf()' >/dev/null
    local peak; peak=$(resident "$1" "$last")
    # A program that looks ahead may have marked the last one before others.
    while compgen -G "$status/0*.ready" >/dev/null; do sleep 0.02; done
    local took=$((($(now) - begun) / 1000000))
    processors | awk -v peer="$1, $2 ms" -v n="$segments" '
        NR == FNR {before[$1] = $2; next}
        {each = ($2 - before[$1]) / n; if (each >= 0.5) text = text sprintf(" %s %.0f", $1, each)}
        END {print peer ": processor time a segment, ms:" text}' /tmp/processors - >&2
    setting archive_command '' && sql 'SELECT pg_reload_conf()' >/dev/null
    local stored; stored=$(find "/srv/s3/walg-test/${prefix[$1]%/*}" -type f 2>/dev/null | grep -cE '/[0-9A-F]{24}[^/]*$' || true)
    ((stored >= segments)) || echo "only $stored of $segments are stored by $1" >&2
    stop "$1"
    echo "$took $peak"
}

median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

part_drain() {
    local peer ms round
    for ms in $latencies; do
        rm -f /tmp/drain.*
        for ((round = 0; round < rounds; round++)); do
            for peer in "${peers[@]}"; do
                # Half a second and more a segment: one round tells enough.
                [[ $peer != barman ]] || ((round == 0)) || continue
                drain "$peer" "$ms" >>"/tmp/drain.$peer"
            done
        done
        printf '\n| %s segments by archive_command, S3 latency %s ms | a segment | × walrus daemon | peak RSS |\n| --- | --- | --- | --- |\n' "$segments" "$ms"
        local base; base=$(cut -d' ' -f1 /tmp/drain.walrus | median)
        for peer in "${peers[@]}"; do
            local took; took=$(cut -d' ' -f1 "/tmp/drain.$peer" | median)
            printf '| %s | %s ms | %s | %s MB |\n' "$peer" $((took / segments)) "$(awk "BEGIN {printf \"%.2f\", $base / $took}")" "$(cut -d' ' -f2 "/tmp/drain.$peer" | sort -n | tail -n 1)"
        done
    done
}

part_one() {
    latency 0
    start walrus
    start xdb
    postgres perl /benches/archive_one.pl "${list[@]}"
    # First the one that has a walrus of its own.
    stop xdb
    stop walrus
}

for part in "${@:-one drain}"; do for each in $part; do "part_$each"; done; done
