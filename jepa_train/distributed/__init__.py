"""Collectives and batch norm over the ranks of a run."""
