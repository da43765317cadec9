"""Public import path of analysis.store.runs: sweeps of an MLflow store, or of an export, as data frames."""

from analysis.store.runs import *  # noqa: F403
