"""A sweep's MLflow experiment: creation and description."""

import os

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from analysis.store.mlflow_sql import take_artifacts_along
from analysis.store.uri import NothingToShow, file_problem, sqlite_file
from jepa_train.storage.paths import results_dir
from sweeps.engine.store.mlflow_client import LONGEST_DESCRIPTION, open_client, when_free
from sweeps.engine.store.reader import find_experiment, store_uri


def open_experiment(sweep: str) -> tuple[MlflowClient, Experiment]:
    """A client of the store and the sweep's experiment, created if it is missing.

    Artifacts of a local store are in the results folder, also after it was moved or copied.

    Raises:
        MlflowException: the store cannot be reached; NothingToShow: it cannot be written.
    """
    uri = store_uri()
    file = sqlite_file(uri)
    results_dir().mkdir(parents=True, exist_ok=True)
    client = open_client(uri)
    check_writable_store()
    if file is not None:
        take_artifacts_along(file, results_dir())
    experiment = find_experiment(sweep)
    if experiment is None:
        # under results for a local store; a server decides for itself
        artifacts = (results_dir() / "artifacts" / sweep).as_uri() if file is not None else None
        try:
            when_free(lambda: client.create_experiment(sweep, artifact_location=artifacts))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another launch was faster
                raise
        experiment = find_experiment(sweep)
    assert experiment is not None
    return client, experiment


def check_writable_store() -> None:
    """Refuse an sqlite store that cannot be written; one that is missing is created later.

    Raises:
        NothingToShow: it cannot.
    """
    file = sqlite_file(store_uri())
    if file is not None and os.path.exists(file) and (problem := file_problem(file, writes=True)):
        raise NothingToShow(problem)


def shortened(description: str) -> str:
    """Cut a description at the end of a line to the length that MLflow takes."""
    if len(description) <= LONGEST_DESCRIPTION:
        return description
    return description[:LONGEST_DESCRIPTION].rpartition("\n")[0] + "\n\n(cut here)"


def escape_html(table: str) -> str:
    """Escape HTML and images in a Markdown table, which the UI would load from a label or a reason."""
    return table.replace("<", "&lt;").replace("![", "!&#91;")
