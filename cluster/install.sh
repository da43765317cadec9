#!/usr/bin/env bash
# Run on every node by the cluster files: the pinned packages and the project, in ~/jepa-venv. A second run does only
# what is missing. JEPA_PYTHON is the Python to make the venv with; all nodes need the same one.
set -euo pipefail
project=$HOME/jepa-sweeps venv=$HOME/jepa-venv settings=$HOME/.jepa-node.sh

chmod 600 "$HOME/.ray/auth_token"
[ -x "$venv/bin/python" ] || "${JEPA_PYTHON:-python3}" -m venv "$venv"
if ! cmp -s "$project/requirements.lock" "$venv/requirements.lock"; then
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$project/requirements.lock"
    cp "$project/requirements.lock" "$venv/requirements.lock"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable "$project"

# Ray's commands, jobs and workers start from login shells: those read .bashrc, and .bashrc reads the settings: yours,
# which the top of the cluster file writes, and ours.
# shellcheck disable=SC2016
grep -qs 'jepa-venv' "$settings" || echo 'export PATH="$HOME/jepa-venv/bin:$PATH"' >> "$settings"
# Ray's metrics would answer anybody who asks. A port that cannot be is the only way to close the head's two servers.
grep -qs 'METRIC_PORT' "$settings" ||
    echo 'export RAY_enable_metrics_collection=0 AUTOSCALER_METRIC_PORT=-1 DASHBOARD_METRIC_PORT=-1' >> "$settings"
for file in .jepa-sweeps.sh .jepa-node.sh; do
    grep -qsF "$file" "$HOME/.bashrc" || echo ". ~/$file" >> "$HOME/.bashrc"
done

# The files may belong to the user who copied them; git would then not say which commit they are.
if command -v git > /dev/null; then
    git config --global --replace-all safe.directory "$project" "^$project\$"
fi
