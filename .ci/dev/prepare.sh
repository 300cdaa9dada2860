# What the machine must have, and Docker.

CARGO_MINIMUM=1.95
GO_MINIMUM=1.24

# What is missing is collected first and named together. Packages can be installed, the rest cannot.
packages=() absent=()

# need_version NAME MINIMUM VERSION
need_version() {
    # The smaller of the two by version order is the minimum, or the version is too old (or none).
    [[ -n $3 && $(printf '%s\n' "$2" "$3" | sort -V | head -n 1) = "$2" ]] \
        || absent+=("$1 $2 or later (here: ${3:-none on PATH})")
}

# As a user, programs of /sbin may be off PATH.
has() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; }

# need PROGRAM PACKAGE…
need() { has "$1" || packages+=("${@:2}"); }

need_rust() {
    need_version cargo $CARGO_MINIMUM "$(cargo --version 2>/dev/null | cut -d' ' -f2)"
    local part
    for part in rustfmt clippy; do
        "cargo-${part/rust/}" --version >/dev/null 2>&1 || rustup component add $part >/dev/null 2>&1 \
            || absent+=("$part (rustup component add $part)")
    done
    need cc gcc libc6-dev
    need make make
    need git git
    need pkg-config pkg-config
}

need_lab() {
    need_version go $GO_MINIMUM "$(go env GOVERSION 2>/dev/null | sed 's/^go//')"
    if ! docker_answers; then
        need dockerd docker.io
        # Debian 12 has the client in docker.io, Debian 13 in a package of its own.
        need docker docker.io
        need iptables iptables
    fi
    docker compose version >/dev/null 2>&1 || need docker-compose docker-compose
    # Only the base image needs it, and only where no image registry answers.
    ! can_install || need debootstrap debootstrap
}

can_install() { [[ $EUID = 0 && -e /etc/debian_version ]]; }

install_missing() {
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sed '/^$/d' | sort -u)
    if ((${#absent[@]})) || { ((${#packages[@]})) && ! can_install; }; then
        fail "missing: $(printf '%s\n' "${absent[@]}" "${packages[@]/%/ (package)}" | sed '/^$/d' | paste -sd, | sed 's/,/, /g')" \
            "Rust comes by rustup, Go by its own archive; both on PATH. The packages are Debian's: as root on Debian, ./dev installs them"
    fi
    ((${#packages[@]})) || return 0
    echo "installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o Acquire::Retries=3 update
    # Only known once the lists are there.
    if [[ " ${packages[*]} " = *" docker.io "* ]] && apt-cache show docker-cli >/dev/null 2>&1; then packages+=(docker-cli); fi
    apt-get -qq -o Acquire::Retries=3 install -y --no-install-recommends "${packages[@]}" >"$scratch/apt.log" 2>&1 \
        || { tail -n 40 "$scratch/apt.log" >&2; fail "apt-get install ${packages[*]} failed"; }
}

docker_answers() { timeout 20 docker version >/dev/null 2>&1; }

start_docker() {
    docker_answers && return
    [[ $EUID = 0 ]] || fail "the Docker daemon does not answer: $(docker version 2>&1 | tail -n 1)" \
        "start it, or join the group docker, or run this as root"
    local log=$cache/dockerd.log
    if [[ -d /run/systemd/system ]]; then
        systemctl start docker
    else
        # In a session of its own and with no pipe of ours: it outlives this script.
        PATH=$PATH:/usr/sbin:/sbin setsid --fork dockerd >"$log" 2>&1 </dev/null
    fi
    local deadline=$((EPOCHSECONDS + 60))
    until docker_answers; do
        ((EPOCHSECONDS < deadline)) || fail "the Docker daemon does not answer after 60 s: $(tail -n 1 "$log" 2>/dev/null)" "its log is $log, or the journal's"
        sleep 0.5
    done
}
