#!/usr/bin/env bash
# Run on spot workers by the cluster files, with the name of the cloud: its notice that this machine will be taken away
# drains the node. In the background, in a session of its own (see mlflow.sh); one that watches already is left alone.
set -euo pipefail
setsid nohup flock --nonblock "$HOME/.jepa-notice.lock" python -m sweeps notice "$1" \
    < /dev/null >> "$HOME/jepa-notice.log" 2>&1 &
