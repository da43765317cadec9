"""Rectified LpJEPA: the target RGG(p, mu), its slices, and the optimiser. p and mu are the papers' grid axes."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

SPACE = {
    "method.p": CategoricalDistribution([0.25, 0.5, 0.75, 1.0, 1.5, 2.0]),
    "method.mu": FloatDistribution(-3.0, 1.0),
    "method.num_slices": CategoricalDistribution([512, 2048, 8192]),
    "optim.lr": FloatDistribution(3e-4, 1e-2, log=True),
    "optim.weight_decay": FloatDistribution(1e-5, 1e-2, log=True),
}
