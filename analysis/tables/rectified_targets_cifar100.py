"""Rectified LpJEPA, Table 2: targets and baselines on CIFAR-100."""

from analysis.tables.rectified_targets import build

TITLE = "Rectified LpJEPA on CIFAR-100: linear probe top-1 (%) and sparsity"
__all__ = ["TITLE", "build"]
