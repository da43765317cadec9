"""Runs of an MLflow store or an export as data frames."""
