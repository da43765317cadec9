"""KerJEPA: its weight, its kernel, and the optimiser."""

from optuna.distributions import FloatDistribution

SPACE = {
    "method.lamb": FloatDistribution(1e-3, 0.3, log=True),
    "method.gamma": FloatDistribution(0.1, 2.0, log=True),
    "optim.lr": FloatDistribution(3e-4, 1e-2, log=True),
    "optim.weight_decay": FloatDistribution(1e-5, 1e-1, log=True),
}
