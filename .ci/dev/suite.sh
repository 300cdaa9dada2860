# Build, lint and tests.

# Not `cargo build`: without the tests' features it would compile the heavy crates a second time.
build() { cargo test -q --no-run --locked; }

lint() {
    cargo fmt --check
    cargo clippy -q --all-targets --locked -- -D warnings
    local layers
    layers=$(cargo test -q --lib layers 2>&1) || { echo "$layers" >&2; fail "the layer test failed"; }
    [[ $layers != *" 0 passed"* ]] || fail "no test named layers ran"
    local deny=$tools/cargo-deny-$CARGO_DENY/cargo-deny
    "$deny" --log-level warn check bans licenses sources
    # The advisories live on a host that does not answer everywhere.
    if GIT_TERMINAL_PROMPT=0 timeout 60 "$deny" fetch db >"$scratch/advisories.log" 2>&1; then
        "$deny" --log-level warn --offline check advisories
    else
        note "advisories were not checked: their database could not be fetched ($(sed '/^$/d' "$scratch/advisories.log" | tail -n 1))"
    fi
}

integration_tests() {
    local names
    names=$(cargo test -q --test it -- --list "$@")
    [[ $names = *": test"* ]] || fail "no integration test has $* in its name"
    local log=$scratch/integration.log failed before after
    before=$(processors)
    cargo test --test it -- --test-threads=4 "$@" 2>&1 | tee "$log" && return
    after=$(processors)
    local stolen=$((100 * (${after#* } - ${before#* }) / (${after% *} - ${before% *} + 1)))
    # A test that passes alone has a race, which is noted. A test that also fails alone fails the run.
    mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log")
    ((${#failed[@]} >= 1 && ${#failed[@]} <= 2)) || return 1
    echo "=== once more, each alone: ${failed[*]}"
    cargo test --test it -- --test-threads=1 --exact "${failed[@]}"
    note "failed beside others, for the reason above, and passed alone (the host held $stolen % of the processors back): ${failed[*]}"
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
