"""Search with Optuna, and early stopping."""
