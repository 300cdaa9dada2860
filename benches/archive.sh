#!/bin/bash
# Archiving: `xdb wal-push` by the daemon against the bare program's daemon. Run by benches/archive.sh XDB IMAGE.
# Starts one container, prints one line a measurement, and removes it.
set -euo pipefail
xdb=$(realpath "$1") image=$2
backlog=${BACKLOG:-60}
lab=$(docker run -d --rm --shm-size 256m -e LAB_SERVICES="s3 toxiproxy postgres pgbouncer redis" \
    -e LAB_BUCKETS="walg-test pgdump-test" -v "$xdb:/usr/local/bin/xdb:ro" "$image")
trap 'docker rm -f "$lab" >/dev/null' EXIT
root() { docker exec -i "$lab" bash -c "$1"; }
postgres() {
    docker exec -i "$lab" setpriv --reuid=postgres --regid=postgres --init-groups env -C /var/lib/postgresql \
        HOME=/var/lib/postgresql USER=postgres AWS_EC2_METADATA_DISABLED=true bash -c "$1"
}
sql() { postgres "psql -XAtqc \"$1\""; }

root 'cat >/etc/xdb/xdb.toml && chown root:postgres /etc/xdb/xdb.toml && chmod 0640 /etc/xdb/xdb.toml' <<'TOML'
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
socket = "/var/lib/xdb/archive.sock"
look_ahead = 8
[schedule]
base_backup = "0 0 1 1 *"
TOML
until sql 'SELECT 1' >/dev/null 2>&1; do sleep 0.2; done
postgres 'psql -XAtqc "ALTER SYSTEM SET max_wal_size = '"'8GB'"'" -c "ALTER SYSTEM SET archive_timeout = 0" -c "SELECT pg_reload_conf()" -c "CREATE TABLE filler (a int)" >/dev/null'

walrus='WALG_S3_PREFIX=s3://walg-test/bare WALG_COMPRESSION_METHOD=lz4 WALG_PREVENT_WAL_OVERWRITE=true AWS_REGION=us-east-1
    AWS_ENDPOINT=http://127.0.0.1:7000 AWS_S3_FORCE_PATH_STYLE=true AWS_ACCESS_KEY_ID=lab AWS_SECRET_ACCESS_KEY=lab-secret-key
    PGDATA=/var/lib/postgresql/17/main'
postgres "$(tr '\n' ' ' <<<"$walrus") nohup walrus daemon /tmp/bare.sock >/tmp/bare.log 2>&1 &"
postgres 'nohup xdb daemon >/tmp/daemon.log 2>&1 &'
sleep 6
bare='walrus daemon-client --socket /tmp/bare.sock wal-push %f'

drain() { # NAME LATENCY COMMAND
    root "curl -s -X DELETE http://127.0.0.1:8474/proxies/s3/toxics/latency >/dev/null || true"
    sql "ALTER SYSTEM SET archive_command = ''" && sql 'SELECT pg_reload_conf()' >/dev/null
    # What is stored already would be compared, not uploaded.
    root 'rm -rf /srv/s3/walg-test/bare/wal_005/* /srv/s3/walg-test/main/pg17/wal_005/*'
    sleep 2
    postgres "for i in \$(seq $backlog); do psql -XAtqc \"INSERT INTO filler SELECT generate_series(1, 20000)\" -c 'SELECT pg_switch_wal()' >/dev/null; done"
    [ "$2" = 0 ] || root "curl -s -X POST -d '{\"name\":\"latency\",\"type\":\"latency\",\"attributes\":{\"latency\":$2}}' http://127.0.0.1:8474/proxies/s3/toxics >/dev/null"
    sql "SELECT pg_stat_reset_shared('archiver')" >/dev/null
    sql "ALTER SYSTEM SET archive_command = '$3'"
    local begun; begun=$(date +%s%N)
    sql 'SELECT pg_reload_conf()' >/dev/null
    root 'for i in $(seq 3000); do ls /var/lib/postgresql/17/main/pg_wal/archive_status | grep -q ready || exit 0; sleep 0.1; done; exit 1'
    local took=$((($(date +%s%N) - begun) / 1000000))
    echo "$1, $backlog segments, $2 ms: $took ms, $((took / backlog)) ms a segment, failed $(sql 'SELECT failed_count FROM pg_stat_archiver')"
}
for latency in ${LATENCIES:-0 100}; do
    drain "bare walrus daemon" $latency "$bare"
    drain "xdb wal-push" $latency 'xdb wal-push "%p"'
done
