# Stages of a run: each one timed, the first that fails ends the run.

stage="" stage_begin=0 run_begin=$EPOCHSECONDS times=() notes=()

begin() {
    finish_stage ok
    stage=$1 stage_begin=$EPOCHSECONDS
    echo "=== $stage"
}

finish_stage() {
    [[ -n $stage ]] || return 0
    times+=("$(printf '%-20s %5d s  %s' "$stage" $((EPOCHSECONDS - stage_begin)) "$1")")
    echo "=== $stage: $((EPOCHSECONDS - stage_begin)) s, $1"
    stage=""
}

note() {
    notes+=("$1")
    echo "NOTE: $1"
}

fail() {
    echo "ERROR: $1" >&2
    if [[ -n ${2-} ]]; then echo "HINT: $2" >&2; fi
    exit 1
}

# A build in the background would continue after this script has ended.
kill_children() {
    local child children
    children=$(cat /proc/"$1"/task/*/children 2>/dev/null) || return 0
    for child in $children; do
        kill_children "$child"
        kill "$child" 2>/dev/null || true
    done
}

at_exit() {
    local code=$?
    trap - EXIT
    kill_children $BASHPID
    finish_stage "$([[ $code = 0 ]] && echo ok || echo FAILED)"
    # An interrupted debootstrap leaves its mounts behind.
    umount "$scratch"/root/{proc,sys} 2>/dev/null || true
    rm -rf --one-file-system "$scratch"
    if ((${#times[@]})); then
        printf '\n'
        printf '%s\n' "${times[@]}"
        printf '%-20s %5d s  %s\n' total $((EPOCHSECONDS - run_begin)) "$([[ $code = 0 ]] && echo ok || echo FAILED)"
        printf 'NOTE: %s\n' "${notes[@]}" | sed '/^NOTE: $/d'
    fi
    exit "$code"
}
trap at_exit EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
