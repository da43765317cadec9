"""Barlow Twins: its weight, and the optimiser."""

from optuna.distributions import FloatDistribution

SPACE = {
    "method.lamb_off": FloatDistribution(5e-4, 5e-2, log=True),
    "optim.lr": FloatDistribution(3e-4, 1e-2, log=True),
    "optim.weight_decay": FloatDistribution(1e-5, 1e-1, log=True),
}
