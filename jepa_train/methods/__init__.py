"""The methods: one file each, one row each in METHODS."""

from jepa_train.methods.base import Method
from jepa_train.methods.lejepa import LeJEPA
from jepa_train.methods.rectified_lpjepa import RectifiedLpJEPA

METHODS: dict[str, type[Method]] = {method.name: method for method in (LeJEPA, RectifiedLpJEPA)}

__all__ = ["METHODS", "LeJEPA", "Method", "RectifiedLpJEPA"]
