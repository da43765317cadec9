"""The MLflow UI on loopback, with links that open the runs: python -m analysis.ui [--port 5000]"""

import argparse
import os
import sys

from analysis.store.mlflow_sql import take_artifacts_along
from analysis.store.runs import NothingToShow, store_uri, sweeps_in
from analysis.store.sources import shown
from analysis.store.uri import file_problem, results_folder, sqlite_file, store_line

WHAT = {"cells": "cells", "seeds": "means over seeds", "compare": "comparison in charts"}  # views of the UI


def view_link(experiment_id: str, view: str = "") -> str:
    """A link within the UI to a view of a sweep. Without workflowType, MLflow opens an empty page."""
    share = f"&viewStateShareKey={view}" if view else ""
    charts = "&compareRunsMode=CHART" if view == "compare" else ""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning{share}{charts}"


def links(base: str, store: str) -> str:
    """Links to the runs of each sweep, to its means over seeds where it has several, and to its comparison."""
    lines = []
    for name, experiment in sorted(sweeps_in(store).items()):
        views = [view for view in WHAT if f"mlflow.sharedViewState.{view}" in experiment.tags] or [""]  # an older store
        pages = [(WHAT.get(view, "cells"), view_link(experiment.experiment_id, view)) for view in views]
        lines += [f"{name:<28}{what:<22}{base}/{page}" for what, page in pages]
    return "\n".join(lines)


def main(words: list[str]) -> int:
    """Print the links and replace this process by the server; exit code 2 without a store."""
    parser = argparse.ArgumentParser(prog="python -m analysis.ui", description="The MLflow UI on loopback.")
    parser.add_argument("--port", type=int, default=5000)
    port = parser.parse_args(words).port
    try:
        store = store_uri()
        text = links(f"http://127.0.0.1:{port}", store)
    except NothingToShow as nothing:
        sys.stderr.write(f"error: {nothing}\n")
        return 2
    sys.stderr.write(f"{store_line(store, shown(store))}\n")
    file = sqlite_file(store)
    if file is not None and file.parent == results_folder() and not file_problem(file, writes=True):
        take_artifacts_along(file, file.parent)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # else it starts a dozen idle processes
    server = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server += ["--uvicorn-opts", "--log-level warning"]
    os.environ["MLFLOW_BACKEND_STORE_URI"] = store  # not as an argument, which other users of the machine can read
    os.execv(sys.executable, [sys.executable, "-m", *server])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
