# Build, lint and tests.

# logged NAME COMMAND…: what it says goes to a log, and is shown when it fails.
logged() {
    local log=$cache/$1.log
    "${@:2}" >"$log" 2>&1 || { tail -n 200 "$log" >&2; fail "${*:2} failed" "all that it said is in $log"; }
}

# Not `cargo build`: without the tests' features it would compile the heavy crates a second time.
build() { logged build cargo test --no-run --locked; }

unit_tests() {
    logged unit-tests cargo test --lib --bins --locked -- --test-threads="$(test_threads)"
    grep '^test result' "$cache/unit-tests.log"
}

lint() {
    cargo fmt --check
    logged clippy cargo clippy --all-targets --locked -- -D warnings
    logged layers cargo test --lib --locked layers
    ! grep -q ' 0 passed' "$cache/layers.log" || fail "no test named layers ran"
    local deny=$tools/cargo-deny-$CARGO_DENY/cargo-deny
    "$deny" --log-level warn check bans licenses sources
    # The advisories live on a host that does not answer everywhere.
    if GIT_TERMINAL_PROMPT=0 timeout 60 "$deny" fetch db >"$scratch/advisories.log" 2>&1; then
        "$deny" --log-level warn --offline check advisories
    else
        note "advisories were not checked: their database could not be fetched ($(sed '/^$/d' "$scratch/advisories.log" | tail -n 1))"
    fi
}

# Most of a test is waiting for a server, a deadline or a pause: three of them fill a processor.
test_threads() {
    local threads=$((3 * $(nproc)))
    echo $((threads < 12 ? threads : 12))
}

# Tests that may fail beside others and pass alone: more in one run are no accident.
REPEATS=2

integration_tests() {
    local names
    names=$(cargo test -q --test it -- --list "$@")
    [[ $names = *": test"* ]] || fail "no integration test has $* in its name"
    local log=$scratch/integration.log failed before after
    before=$(processors)
    cargo test --test it -- --test-threads="$(test_threads)" "$@" 2>&1 | tee "$log" && return
    after=$(processors)
    local stolen=$((100 * (${after#* } - ${before#* }) / (${after% *} - ${before% *} + 1)))
    # A test that passes alone has a race, which is noted. A test that also fails alone fails the run.
    mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
    ((${#failed[@]})) || fail "the integration tests ended before their summary" "the last lines above say why"
    ((${#failed[@]} <= REPEATS)) || fail "${#failed[@]} integration tests failed, and at most $REPEATS are repeated: ${failed[*]}" \
        "./dev test NAME runs one of them alone"
    echo "=== repeats: ${#failed[@]} of at most $REPEATS, each alone: ${failed[*]}"
    cargo test --test it -- --test-threads=1 --exact "${failed[@]}"
    note "repeats: ${#failed[@]} of at most $REPEATS. Failed beside others, for the reason above, and passed alone (the host held $stolen % of the processors back): ${failed[*]}"
}

# The time of all processors, and how much of it was stolen: user, nice, system, idle, iowait, irq, softirq, steal.
processors() { awk '/^cpu / { print $2 + $3 + $4 + $5 + $6 + $7 + $8 + $9, $9 }' /proc/stat; }

# A killed test run cannot remove its containers; each carries the process id of its run.
remove_leftovers() {
    local id pid
    while read -r id pid; do
        # One that a dead Docker client left paused cannot be removed, and is no reason to wait for ever.
        is_test_run "$pid" || timeout 30 docker rm -fv "$id" >/dev/null || true
    done < <(docker ps -a --filter label=xdb.test-run --format '{{.ID}} {{.Label "xdb.test-run"}}')
    # The compose test's cluster has it in its name.
    while read -r id; do
        pid=${id#xdb-test-}
        is_test_run "${pid%%-*}" || (COMPOSE_PROJECT_NAME=$id && cluster_down </dev/null) || true
    done < <(find "$cache"/cluster -mindepth 1 -maxdepth 1 -name 'xdb-test-*' -printf '%f\n' 2>/dev/null)
}

is_test_run() { [[ $(cat "/proc/$1/comm" 2>/dev/null || true) == it-* ]]; }
