"""Public import path of jepa_train.config.scales."""

from jepa_train.config.scales import *  # noqa: F403
