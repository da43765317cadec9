"""Checkpoints of a run: writing, retention, exact resume."""
