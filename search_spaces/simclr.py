"""SimCLR: its temperature, and the optimiser."""

from optuna.distributions import FloatDistribution

SPACE = {
    "method.temperature": FloatDistribution(0.05, 1.0, log=True),
    "optim.lr": FloatDistribution(3e-4, 1e-2, log=True),
    "optim.weight_decay": FloatDistribution(1e-5, 1e-1, log=True),
}
