#!/usr/bin/env bash
# Run on the head with USER@SERVER, in the place of mlflow.sh, where a team has a store (docs/team.md): its server, which
# listens on its own loopback, answers on the head's. A tunnel that broke is made again; one that stands is left alone.
set -euo pipefail
server=${1:?"must be USER@SERVER"} port=5000

answers() {
    python -c "import urllib.request as u; u.urlopen('http://127.0.0.1:$port/health', timeout=5)" 2> /dev/null
}

# In a session of its own: see mlflow.sh.
# shellcheck disable=SC2016
setsid nohup flock --nonblock "$HOME/.tunnel.lock" bash -c 'while :; do "$@"; sleep 5; done' tunnel \
    ssh -N -L "$port:127.0.0.1:$port" -i "$HOME/.ssh/mlflow" -o BatchMode=yes -o StrictHostKeyChecking=accept-new \
    -o ExitOnForwardFailure=yes -o ServerAliveInterval=15 "$server" < /dev/null >> "$HOME/tunnel.log" 2>&1 &
for _ in $(seq 60); do
    answers && exit
    sleep 1
done
echo "error: the MLflow server must answer on port $port of the head, through a tunnel to $server; see ~/tunnel.log" >&2
exit 1
