"""VICReg: its weights of variance and covariance (invariance keeps the papers' 25 as the scale), and the optimiser."""

from optuna.distributions import FloatDistribution

SPACE = {
    "method.lamb_var": FloatDistribution(5.0, 100.0, log=True),
    "method.lamb_cov": FloatDistribution(0.1, 100.0, log=True),
    "optim.lr": FloatDistribution(3e-4, 1e-2, log=True),
    "optim.weight_decay": FloatDistribution(1e-5, 1e-1, log=True),
}
