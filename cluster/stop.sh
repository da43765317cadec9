#!/usr/bin/env bash
# Ends Ray on machines of your own, all of them. `ray down` ends the head's alone; the workers' follows a minute later,
# but for its agents and log monitors, which stay. Run on the head, from the project's folder on your laptop:
#   ray exec cluster/local.yaml 'bash ~/jepa-sweeps/cluster/stop.sh'
set -euo pipefail
ray stop # the head's first: its autoscaler would start the others again
read -r user workers < <(python -c '
import os, yaml
with open(os.path.expanduser("~/ray_bootstrap_config.yaml")) as stream:
    config = yaml.safe_load(stream)
print(config["auth"]["ssh_user"], *config["provider"]["worker_ips"])')
left=()
for worker in $workers; do
    ssh -n -i ~/ray_bootstrap_key.pem -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
        -o LogLevel=ERROR -o ConnectTimeout=10 "$user@$worker" 'bash --login -ic "ray stop"' || left+=("$worker")
done
if [ "${#left[@]}" -gt 0 ]; then
    echo "error: Ray must be ended on every machine, but ${left[*]} did not answer; run 'ray stop' there" >&2
    exit 1
fi
