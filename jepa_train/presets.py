"""Public import path of jepa_train.config.presets."""

from jepa_train.config.presets import *  # noqa: F403
