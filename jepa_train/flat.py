"""Public import path of jepa_train.config.flat."""

from jepa_train.config.flat import *  # noqa: F403
