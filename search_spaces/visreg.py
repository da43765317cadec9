"""VISReg: its weight, that of the shape against the other terms, its slices, and the optimiser."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

SPACE = {
    "method.lamb": FloatDistribution(0.1, 0.95),
    "method.lamb_shape": FloatDistribution(0.25, 4.0, log=True),
    "method.num_slices": CategoricalDistribution([1024, 2048, 4096]),
    "optim.lr": FloatDistribution(3e-4, 1e-2, log=True),
    "optim.weight_decay": FloatDistribution(1e-5, 1e-1, log=True),
}
