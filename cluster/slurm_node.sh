#!/usr/bin/env bash
# Run by cluster/slurm.sh on every node of its job: Ray, and on the first node the sweep. It leaves the cache alone.
#   slurm_node.sh ADDRESS NODES SWEEP...
set -euo pipefail
address=$1 nodes=$2 ray=
shift 2

# On the first node its end is the job's: with the sweep's exit code, or 1 where none began.
ended() {
    if [ -n "$ray" ] && kill "$ray" 2> /dev/null; then
        ray stop > /dev/null 2>&1 || true
    fi
    code=$(cat "$RAY_TMPDIR/code" 2> /dev/null || echo 1)
    for _ in 1 2 3 4 5; do # Ray may write on while it ends
        rm -rf "$RAY_TMPDIR" && break
        sleep 1
    done
    if [ "$SLURM_NODEID" -eq 0 ]; then
        echo "$code" > "$JEPA_ENDED.new"
        mv "$JEPA_ENDED.new" "$JEPA_ENDED"
    fi
}
trap ended EXIT
trap 'exit 143' TERM

# A folder that is the user's alone: anybody may have made one of that name in /tmp.
own() {
    mkdir -m 700 "$1" 2> /dev/null || { [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && chmod 700 "$1"; } || {
        echo "error: $1 on $(uname -n) must be a folder of $(id -un)'s; remove it" >&2
        exit 1
    }
}
own "$RAY_TMPDIR"
if [ -z "${JEPA_CACHE:-}" ]; then # kept for the next job
    JEPA_CACHE=/tmp/jepa-cache-$(id -un)
    export JEPA_CACHE
    own "$JEPA_CACHE"
fi

# shellcheck disable=SC2016
ray symmetric-run --address "$address" --min-nodes "$nodes" --num-cpus="$SLURM_CPUS_PER_TASK" \
    -- bash -c 'python -m sweeps "$@"; echo $? > "$RAY_TMPDIR/code"' sweeps "$@" &
ray=$!
if [ "$SLURM_NODEID" -eq 0 ]; then
    wait "$ray"
    exit
fi

# Nobody tells the other nodes that the first has ended, but nothing answers there any more.
seen=0 missed=0
while [ "$missed" -lt 3 ] && kill -0 "$ray" 2> /dev/null; do
    if (: < "/dev/tcp/${address/://}") 2> /dev/null; then
        seen=1 missed=0
    else
        missed=$((missed + seen))
    fi
    sleep 5
done
