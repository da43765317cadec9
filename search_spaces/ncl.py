"""NCL: its temperature, its rectifier, and the optimiser."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

SPACE = {
    "method.temperature": FloatDistribution(0.05, 1.0, log=True),
    "method.nonneg": CategoricalDistribution(["relu", "rep_relu"]),
    "optim.lr": FloatDistribution(3e-4, 1e-2, log=True),
    "optim.weight_decay": FloatDistribution(1e-5, 1e-1, log=True),
}
