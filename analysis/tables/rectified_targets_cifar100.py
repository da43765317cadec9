"""Rectified LpJEPA, Table 2: targets and baselines on CIFAR-100."""

from analysis.tables.rectified_targets import TABLE as TABLE

TITLE = "Rectified LpJEPA, recipes of CIFAR-100: online linear probe top-1 (%) and sparsity"
