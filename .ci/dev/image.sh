# The programs that are built from source, outside the repository, and the image of the lab.

# What is fetched by version. A changed version is built beside the old one.
WALRUS=0.4.1        # program `walrus` of crate wal-rus
CARGO_DENY=0.20.2
VERSITYGW=v1.8.0
TOXIPROXY=v2.12.0
BASE_IMAGE=debian:trixie-slim

# install_tool NAME VERSION PROGRAM COMMAND… runs COMMAND, which leaves PROGRAM in $scratch/NAME. The rename
# comes last, so an interrupted install is done again.
install_tool() {
    local name=$1 version=$2 program=$3
    shift 3
    [[ -x $tools/$name-$version/$name ]] && return
    echo "building $name $version"
    mkdir -p "$scratch/$name"
    "$@" >"$scratch/$name.log" 2>&1 || {
        tail -n 40 "$scratch/$name.log" >&2
        fail "$name $version could not be built: $*"
    }
    mkdir -p "$scratch/$name-$version"
    mv "$scratch/$name/$program" "$scratch/$name-$version/$name"
    rm -rf "${tools:?}/$name-$version" "${scratch:?}/$name"
    mv "$scratch/$name-$version" "$tools/"
}

# Without --locked: the crates' lock files may name releases that the reachable index lacks.
cargo_tool() { install_tool "$1" "$3" "bin/$1" cargo install "$2" --version "$3" --root "$scratch/$1" --target-dir "$scratch/$1/target"; }
go_tool() { install_tool "$1" "$3" "$(basename "$2")" env GOBIN="$scratch/$1" CGO_ENABLED=0 go install -ldflags="-s -w" "$2@$3"; }

# build_tools [lab] [lint]. Two runs at once would build the same things twice: the second waits for the first.
build_tools() (
    trap 'kill_children $BASHPID' EXIT
    exec 9>"$cache/lock"
    flock 9
    local beside=()
    if [[ " $* " = *" lab "* ]]; then
        # Go's builds and the base image are short; they run while cargo compiles.
        base_image & beside+=($!)
        { go_tool versitygw github.com/versity/versitygw/cmd/versitygw $VERSITYGW
          go_tool toxiproxy github.com/Shopify/toxiproxy/v2/cmd/server $TOXIPROXY; } & beside+=($!)
        cargo_tool walrus wal-rus $WALRUS
    fi
    if [[ " $* " = *" lint "* ]]; then cargo_tool cargo-deny cargo-deny $CARGO_DENY; fi
    local each
    for each in "${beside[@]}"; do wait "$each"; done
)

base_image() {
    docker image inspect $BASE_IMAGE >/dev/null 2>&1 && return
    if timeout 60 docker pull -q $BASE_IMAGE >/dev/null 2>&1; then return; fi
    if [[ $EUID != 0 ]] || ! has debootstrap; then
        fail "no image registry answers, and making $BASE_IMAGE here takes root and debootstrap" "docker pull $BASE_IMAGE, or run ./dev image once as root"
    fi
    echo "no image registry answers: making $BASE_IMAGE by debootstrap"
    PATH=$PATH:/usr/sbin:/sbin debootstrap --variant=minbase --include=ca-certificates trixie "$scratch/root" >"$scratch/debootstrap.log" 2>&1 \
        || { tail -n 20 "$scratch/debootstrap.log" >&2; fail "debootstrap could not make $BASE_IMAGE"; }
    tar -C "$scratch/root" -c . | docker import --change 'CMD ["bash"]' - $BASE_IMAGE >/dev/null
    rm -rf --one-file-system "$scratch/root"
}

# The image is named after everything it is made of, so it is built only when that changes.
lab_image() {
    local wal_g hash
    wal_g=$(command -v wal-g || true)
    hash=$({
        docker image inspect -f '{{.Id}}' $BASE_IMAGE
        find lab -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
        echo "$WALRUS $VERSITYGW $TOXIPROXY"
        if [[ -n $wal_g ]]; then sha256sum <"$wal_g"; fi
    } | sha256sum | cut -c1-12)
    export XDB_LAB_IMAGE=xdb-lab:$hash
    if [[ -z $wal_g ]]; then note "wal-g is not on PATH: the image is without it, and its integration tests do not run"; fi

    if ! docker image inspect "$XDB_LAB_IMAGE" >/dev/null 2>&1; then
        echo "building $XDB_LAB_IMAGE"
        local context=$scratch/image
        cp -r lab "$context"
        mkdir "$context/bin"
        install -m 0755 "$tools/walrus-$WALRUS/walrus" "$tools/versitygw-$VERSITYGW/versitygw" \
            "$tools/toxiproxy-$TOXIPROXY/toxiproxy" ${wal_g:+"$wal_g"} "$context/bin/"
        # The classic builder: Debian's docker.io comes without buildx.
        DOCKER_BUILDKIT=0 docker build --force-rm -t "$XDB_LAB_IMAGE" --label "xdb.wal-g=${wal_g:+yes}" "$context" >"$scratch/image.log" 2>&1 \
            || { tail -n 40 "$scratch/image.log" >&2; fail "$XDB_LAB_IMAGE could not be built"; }
    fi
    docker tag "$XDB_LAB_IMAGE" xdb-lab:latest
    # Older ones only take space; one that is still in use stays.
    docker images xdb-lab --format '{{.Repository}}:{{.Tag}}' | grep -vxF -e "$XDB_LAB_IMAGE" -e xdb-lab:latest \
        | xargs -r docker rmi >/dev/null 2>&1 || true
    echo "image $XDB_LAB_IMAGE"
}
