"""The MLflow store as the record of all cells: reading, writing, locking."""
