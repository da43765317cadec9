#!/usr/bin/env bash
# Run on the head by the cluster files: the MLflow server, on loopback, over a store in JEPA_RESULTS. One that answers
# already is left alone.
set -euo pipefail
port=5000
results=${JEPA_RESULTS:?"must say where the store lies"}

answers() {
    python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health', timeout=5)" 2> /dev/null
}

answers && exit
mkdir -p "$results"
# Without job execution: it takes a dozen processes for jobs that nobody submits. In a session of its own: the shell
# that Ray opens for this command takes its children along when it ends.
MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false setsid nohup mlflow server \
    --host 127.0.0.1 --port "$port" --workers 1 --uvicorn-opts '--log-level warning' \
    --backend-store-uri "sqlite:///$results/mlflow.db" --artifacts-destination "$results/artifacts" \
    < /dev/null > "$results/mlflow.log" 2>&1 &
for _ in $(seq 180); do
    answers && exit
    sleep 1
done
echo "error: the MLflow server must answer on port $port of the head within three minutes; see $results/mlflow.log" >&2
exit 1
