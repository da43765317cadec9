"""The methods: one file each, one row each in METHODS. Those of a user's own enter it by their dotted path."""

import dataclasses
import importlib
import importlib.util
import sys
from typing import Any

from jepa_train.base.checkout import is_running
from jepa_train.base.errors import ConfigError, config_errors, nearest, require, short_repr
from jepa_train.methods.barlow_twins import BarlowTwins
from jepa_train.methods.base import Activation, Method
from jepa_train.methods.kerjepa import KerJEPA
from jepa_train.methods.lejepa import LeJEPA
from jepa_train.methods.ncl import NCL
from jepa_train.methods.rectified_lpjepa import RectifiedLpJEPA
from jepa_train.methods.simclr import SimCLR
from jepa_train.methods.vicreg import VICReg
from jepa_train.methods.visreg import VISReg

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (LeJEPA, RectifiedLpJEPA, VISReg, KerJEPA, VICReg, BarlowTwins, SimCLR, NCL)
}

_INTERFACE = ("name", "only_pairs", "uses_center", "output_activation", "expected", "__call__")

__all__ = [
    "METHODS",
    "NCL",
    "Activation",
    "BarlowTwins",
    "KerJEPA",
    "LeJEPA",
    "Method",
    "RectifiedLpJEPA",
    "SimCLR",
    "VICReg",
    "VISReg",
    "enter_method",
    "method_class",
]


def method_class(name: Any) -> type[Method]:
    """The class of a method by its name in METHODS, or by the dotted path of a class of the user's own.

    Raises:
        ConfigError: there is none, or it is no method (enter_method). An error inside the user's module is not caught.
    """
    if isinstance(name, str) and name not in METHODS and "." in name:
        module, _, attribute = name.rpartition(".")
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            found = getattr(importlib.import_module(module), attribute, None)
            if found is not None:
                with config_errors():
                    enter_method(found)
    if not isinstance(name, str) or name not in METHODS:
        remedy = nearest(str(name), METHODS)
        if "." in str(name):
            remedy = "; Python finds no such class beside the sweep's file or on PYTHONPATH"
        raise ConfigError(f"method must be a known method, got {short_repr(name)}{remedy}")
    return METHODS[name]


def enter_method(kind: Any) -> None:
    """Enter a class of the user's own into METHODS. Its name is the path by which workers import it.

    Raises:
        ValueError: the class lacks a part of the interface, is in the sweep's own file, or has another name.
    """
    lacks = [part for part in _INTERFACE if not hasattr(kind, part)]
    if not lacks and METHODS.get(kind.name) is kind:
        return
    named = getattr(kind, "__name__", repr(kind))
    require(
        not lacks and dataclasses.is_dataclass(kind),
        f"method must be a dataclass with the interface of jepa_train/methods/base.py, got {named}, which lacks "
        f"{', '.join(lacks) or '@dataclass'}; try LeJEPA()",
    )
    path = f"{kind.__module__}.{kind.__name__}"
    require(
        kind.__module__ != "__main__" and not is_running(getattr(sys.modules[kind.__module__], "__file__", None)),
        f"method must be in a file of its own, got {named} in the sweep's file; each edit there would outdate results",
    )
    require(
        kind.name == path,
        f"method.name must be the path by which workers import {named}, got {kind.name!r}; write name = {path!r}, or "
        "list the class in jepa_train/methods/__init__.py",
    )
    METHODS[path] = kind
