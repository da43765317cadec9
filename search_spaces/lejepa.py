"""LeJEPA: its weight, its slices, and the optimiser. The paper's grids (Experiment Details 1) lie inside."""

from optuna.distributions import CategoricalDistribution, FloatDistribution

SPACE = {
    "method.lamb": FloatDistribution(1e-3, 0.3, log=True),
    "method.num_slices": CategoricalDistribution([256, 512, 1024]),
    "optim.lr": FloatDistribution(3e-4, 1e-2, log=True),
    "optim.weight_decay": FloatDistribution(1e-5, 1e-1, log=True),
}
