"""Configuration of one training run: schema, flat form and cell key, presets, scales."""

from jepa_train.config.schema import DataConfig, ModelConfig, OptimConfig, ProbeConfig, TrainConfig, ViewsConfig

__all__ = ["DataConfig", "ModelConfig", "OptimConfig", "ProbeConfig", "TrainConfig", "ViewsConfig"]
