#!/usr/bin/env bash
# A sweep on nodes that Slurm lends: Ray starts on all of them, the sweep on the first, and everything ends with it.
# From the project's folder, which all nodes share, and where `make demo` has made .venv:
#   sbatch cluster/slurm.sh lejepa_lambda_views --scale lab data.path=/nfs/cifar10.tar
# A job that was requeued, or ran out of time and is sent again, goes on where it stopped.

# ---- Yours to fill in ----------------------------------------------------------------------------------------------

#SBATCH --job-name=jepa
#SBATCH --nodes=2
# GPUs and CPU cores of each node.
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=24:00:00

# ---- The rest fits as it is ----------------------------------------------------------------------------------------

# Whole nodes: Ray's end reaches every Ray of the same user on a node.
#SBATCH --exclusive
#SBATCH --ntasks-per-node=1
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?"must be set: send this file with sbatch"}"

# Folders, if need be: the MLflow store, locks and reports, which the first node alone writes; checkpoints and exports,
# a shared folder or a URL. JEPA_CACHE, decoded images on each node's own disk, is /tmp/jepa-cache-USER if not set.
export JEPA_RESULTS=${JEPA_RESULTS:-$PWD/results}
export JEPA_STORAGE=${JEPA_STORAGE:-$JEPA_RESULTS}

export PATH="$PWD/.venv/bin:$PATH"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_enable_metrics_collection=0 AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1 # as install.sh says
[ -f "$HOME/.ray/auth_token" ] || ray get-auth-token --generate > /dev/null
chmod 600 "$HOME/.ray/auth_token"
export RAY_TMPDIR=/tmp/jepa-$SLURM_JOB_ID # /tmp/ray may be another user's
# How long the first node waits for the others, and they for it; 30 to 60 s by default, but Python starts slowly from a
# shared file system.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300
export RAY_py_gcs_connect_timeout_s=300 RAY_gcs_rpc_server_reconnect_timeout_s=300

mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
# The address by which the others reach this node, the first: its own name may lead to its loopback. One port per job.
own_address='
import socket, sys
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # sends nothing
probe.connect((sys.argv[1], 9))
print(probe.getsockname()[0])'
address=$(python -c "$own_address" "${hosts[-1]}"):$((20000 + SLURM_JOB_ID % 10000))

export JEPA_ENDED=$JEPA_RESULTS/slurm-$SLURM_JOB_ID.ended
mkdir -p "$JEPA_RESULTS"
rm -f "$JEPA_ENDED"
srun --nodes="${#hosts[@]}" --ntasks="${#hosts[@]}" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    --no-kill --kill-on-bad-exit=0 --wait=0 \
    bash cluster/slurm_node.sh "$address" "${#hosts[@]}" "$@" &
step=$!

# The job is over when the first node says so, and the others have had a minute: a node that is lost costs its cells.
runs() { kill -0 "$step" 2> /dev/null; }
while runs && [ ! -e "$JEPA_ENDED" ]; do sleep 1; done
for _ in $(seq 60); do
    runs || break
    sleep 1
done
kill "$step" 2> /dev/null || true
code=$(cat "$JEPA_ENDED" 2> /dev/null || echo 1)
rm -f "$JEPA_ENDED"
exit "$code"
