# The cluster of docker-compose.yml.

export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-xdb}
CLUSTER=(s3 db1 db2 management app1)

# The cluster's passwords and its xdb.
cluster_files() { echo "$cache/cluster/$COMPOSE_PROJECT_NAME"; }

compose() {
    # Only `up` knows them, and the file is not read without.
    : >"$scratch/none"
    export XDB_CLUSTER_ENV=${XDB_CLUSTER_ENV:-$scratch/none} XDB_BINARY=${XDB_BINARY:-$scratch/none}
    if docker compose version >/dev/null 2>&1; then docker compose "$@"; else docker-compose "$@"; fi
}

# in_node SERVICE COMMAND… as the database's user.
in_node() { docker exec -u postgres "$COMPOSE_PROJECT_NAME-$1" "${@:2}"; }

random_hex() { od -An -v -tx1 -N "$1" /dev/urandom | tr -d ' \n'; }

# Made at the first `up`, kept until `down`: PostgreSQL keeps the passwords in the volumes.
cluster_secrets() {
    XDB_CLUSTER_ENV=$(cluster_files)/env
    [[ ! -e $XDB_CLUSTER_ENV ]] || return 0
    [[ -z $(docker volume ls -q --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME") ]] \
        || fail "$XDB_CLUSTER_ENV is gone, and with it the passwords of the cluster that is there" "./dev down removes that cluster"
    local name
    (
        umask 077
        {
            printf 'LAB_ACCOUNT=%012d\n' $((0x$(random_hex 4)))
            for name in S3_KEY S3_SECRET POSTGRES_PASSWORD REPLICATION_PASSWORD PGBOUNCER_PASSWORD MONITOR_PASSWORD APP_PASSWORD REDIS_PASSWORD; do
                echo "LAB_$name=$(random_hex 16)"
            done
        } >"$scratch/env"
    )
    mv "$scratch/env" "$XDB_CLUSTER_ENV"
}

# cluster_up XDB. The containers get a copy of xdb, named after its content: the next build changes nothing under
# them, and the next `up` replaces those that run another one.
cluster_up() {
    local files name status waiting deadline=$((EPOCHSECONDS + 240))
    files=$(cluster_files)
    mkdir -p "$files"
    cluster_secrets
    XDB_BINARY=$files/xdb-$(sha256sum <"$1" | cut -c1-12)
    if [[ ! -e $XDB_BINARY ]]; then
        install -m 0755 "$1" "$scratch/xdb"
        mv "$scratch/xdb" "$XDB_BINARY"
    fi
    # Fixed ports for one cluster; the others get free ones.
    if [[ $COMPOSE_PROJECT_NAME != xdb ]]; then
        export XDB_PORT_{S3,DB1,DB2,PRIMARY,REPLICA,HAPROXY,REDIS}=
    fi
    compose up -d --remove-orphans >"$scratch/compose.log" 2>&1 \
        || { tail -n 20 "$scratch/compose.log" >&2; fail "docker compose could not start the cluster"; }
    find "$files" -type f -name 'xdb-*' ! -path "$XDB_BINARY" -delete

    waiting=("${CLUSTER[@]}")
    while ((${#waiting[@]})); do
        for name in "${waiting[@]}"; do
            status=$(docker inspect -f '{{.State.Status}}' "$COMPOSE_PROJECT_NAME-$name")
            [[ $status = running ]] || cluster_failed "$name" "does not run"
            # The health check itself: what Docker knows of it is some seconds old.
            if docker exec "$COMPOSE_PROJECT_NAME-$name" /etc/xdb-lab/cluster/health >"$scratch/health-$name" 2>&1; then
                echo "$name is healthy after $((EPOCHSECONDS - stage_begin)) s"
                mapfile -t waiting < <(printf '%s\n' "${waiting[@]}" | sed "/^$name\$/d")
            else
                ((EPOCHSECONDS < deadline)) || cluster_failed "$name" "is not healthy"
            fi
        done
        # Each one that is asked costs a tenth of a second of a processor.
        ((${#waiting[@]} == 0)) || sleep 1.5
    done
}

cluster_failed() {
    docker logs --tail 40 "$COMPOSE_PROJECT_NAME-$1" >&2 2>&1 || true
    ! [[ -e $scratch/health-$1 ]] || sed 's/^/health check: /' "$scratch/health-$1" >&2
    fail "$1 $2" "its log is above; ./dev logs shows the others', ./dev down removes the cluster"
}

where_to_look() {
    local service port place what
    while read -r service port place what; do
        # shellcheck disable=SC2059  # the table below holds formats
        printf "%-36s %s\n" "$(printf "$place" "$(docker port "$COMPOSE_PROJECT_NAME-$service" "$port" | head -n 1)")" "$what"
    done <<'END'
management 5432 %s the primary, through HAProxy and PgBouncer (./dev psql)
management 5433 %s the replica, likewise
db1 8009 http://%s/api/status what xdb on db1 says
db2 8009 http://%s/api/status what xdb on db2 says
management 8404 http://%s/ what HAProxy thinks of them
management 6379 redis://%s alerts, and the nodes' state
s3 7070 http://%s the buckets
END
    echo "The passwords are in $XDB_CLUSTER_ENV. ./dev logs -f app1 shows the application and its alerts; ./dev down ends it all."
}

cluster_down() {
    # Everything goes: nothing is worth an orderly stop.
    compose down --volumes --remove-orphans --timeout 0 >"$scratch/compose.log" 2>&1 \
        || { tail -n 20 "$scratch/compose.log" >&2; fail "docker compose could not remove the cluster"; }
    rm -rf --one-file-system "$(cluster_files)"
}
