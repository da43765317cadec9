#!/usr/bin/env bash
# Run on the head by the cluster files: the MLflow server, on loopback, over a store in JEPA_RESULTS. One that runs over
# this store is left alone: it holds the lock.
set -euo pipefail
port=5000
results=${JEPA_RESULTS:?"must say where the store lies"}
lock=$results/.mlflow.lock
quoted=${results//%/%25} # in the store's URI
quoted=${quoted//\?/%3F}

answers() {
    python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health', timeout=5)" 2> /dev/null
}

mkdir -p "$results"
if flock --nonblock "$lock" true; then
    if answers; then
        echo "error: port $port of the head must be free for the MLflow server over $results, got another server's" \
            "answer; end that one ('ss -ltnp sport = :$port' names it), then ray up again" >&2
        exit 1
    fi
    # A head that takes another's place has an empty disk; checkpoints and a copy of the store are in the storage.
    [ -z "${JEPA_STORAGE:-}" ] || python -m sweeps backup restore
    # Without job execution: it takes a dozen processes for jobs that nobody submits. In a session of its own: the shell
    # that Ray opens for this command takes its children along when it ends.
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false setsid nohup flock --nonblock "$lock" mlflow server \
        --host 127.0.0.1 --port "$port" --workers 1 --uvicorn-opts '--log-level warning' \
        --backend-store-uri "sqlite:///$quoted/mlflow.db" --artifacts-destination "$results/artifacts" \
        < /dev/null > "$results/mlflow.log" 2>&1 &
fi
if [ -n "${JEPA_STORAGE:-}" ]; then # one that watches already is left alone
    setsid nohup flock --nonblock "$results/.backup.lock" python -m sweeps backup watch \
        < /dev/null >> "$results/backup.log" 2>&1 &
fi
for _ in $(seq 180); do
    answers && exit
    sleep 1
done
echo "error: the MLflow server must answer on port $port of the head within three minutes; see $results/mlflow.log" >&2
exit 1
