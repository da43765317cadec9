"""One training run: the loop, one step, and the checks before the first."""

from jepa_train.train.loop import evaluate_checkpoint, train

__all__ = ["evaluate_checkpoint", "train"]
