# Measurements: each runs a script of benches/ in a container of the lab.

# in_lab SERVICES BUCKETS COMMAND… runs it as root in a container of the lab, with $XDB_BINARY and benches/, and with the build of xdb
# that $XDB_FORMER names, if any, as xdb-former.
in_lab() (
    container=""
    trap '[[ -z $container ]] || docker rm -fv "$container" >/dev/null' EXIT
    # S3 and the proxy before it, both Go, stand for another machine: their garbage collection must not slow what is measured.
    container=$(docker run -d --shm-size 256m -e LAB_SERVICES="$1" -e LAB_BUCKETS="$2" -e GOGC=off -e GOMEMLIMIT=1GiB \
        -v "$(realpath "$XDB_BINARY"):/usr/local/bin/xdb:ro" ${XDB_FORMER:+-v "$(realpath "$XDB_FORMER"):/usr/local/bin/xdb-former:ro"} \
        -v "$PWD/benches:/benches:ro" "$XDB_LAB_IMAGE")
    local deadline=$((EPOCHSECONDS + 60))
    # shellcheck disable=SC2086  # one word a service
    until docker exec "$container" sv -w 30 check $1 >/dev/null 2>&1; do
        ((EPOCHSECONDS < deadline)) || fail "the lab's services are not up" "docker logs, in the container /var/log/xdb-lab"
        sleep 0.5
    done
    docker exec -e SEGMENTS -e ROUNDS -e LATENCIES -e PEERS \
        -e SCALE -e DRILLS -e MEGABYTES -e GIGABYTES "$container" "${@:3}"
)

bench_wait() { in_lab "postgres pgbouncer haproxy" "" perl /benches/wait.pl "$@"; }
bench_catalog() { in_lab s3 walg-test perl /benches/catalog.pl "$@"; }
bench_restore() { in_lab "s3 toxiproxy postgres pgbouncer redis" "walg-test pgdump-test" perl /benches/restore.pl "$@"; }
bench_dump() { in_lab "s3 postgres" "walg-test pgdump-test" perl /benches/dump.pl "$@"; }
bench_archive() { in_lab "s3 toxiproxy postgres pgbouncer redis" "walg-test pgdump-test" bash /benches/archive.sh "$@"; }
bench_checks() { in_lab "s3 postgres pgbouncer" "walg-test pgdump-test" perl /benches/checks.pl "$@"; }
bench_http() { in_lab "s3 toxiproxy postgres pgbouncer redis" "walg-test pgdump-test" perl /benches/http.pl "$@"; }
