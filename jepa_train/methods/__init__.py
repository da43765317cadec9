"""The methods: one file each, one row each in METHODS."""

from jepa_train.methods.base import Activation, Method
from jepa_train.methods.lejepa import LeJEPA
from jepa_train.methods.ncl import NCL
from jepa_train.methods.rectified_lpjepa import RectifiedLpJEPA
from jepa_train.methods.simclr import SimCLR
from jepa_train.methods.vicreg import VICReg

METHODS: dict[str, type[Method]] = {method.name: method for method in (LeJEPA, RectifiedLpJEPA, VICReg, SimCLR, NCL)}

__all__ = ["METHODS", "NCL", "Activation", "LeJEPA", "Method", "RectifiedLpJEPA", "SimCLR", "VICReg"]
