"""Labels of rows, as the papers name methods, data sets and encoders."""

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import pandas as pd

from analysis.select.selection import records_of

_NAMES = {"lejepa": "LeJEPA", "vicreg": "VICReg", "simclr": "SimCLR", "ncl": "NCL"}
_NONNEG = {"relu": "ReLU", "rep_relu": "RepReLU"}


def method_label(run: Mapping[str, Any]) -> str:
    """ "RGN_1.0(0, sigma_GN)", "LeJEPA", "NVICReg-ReLU", ...: the rows of Rectified LpJEPA's tables.

    A Gaussian target is "GN_1.0"; features that do not fit the target, rectified or not, are named, as in Fig. 3 a.
    """
    method = str(run["method"])
    if method != "rectified_lpjepa":
        nonneg = _NONNEG.get(_setting(run, "method.nonneg", ""), "")
        prefix = "N" if nonneg and method != "ncl" else ""
        return f"{prefix}{_NAMES.get(method, method)}" + (f"-{nonneg}" if nonneg else "")
    rectified_target = _setting(run, "method.target", "rgg") == "rgg"
    rectified = str(_setting(run, "method.rectified", True)) == "True"
    sigma = str(_setting(run, "method.sigma_mode", "gn")).upper()
    p, mu = float(_setting(run, "method.p", 1.0)), float(_setting(run, "method.mu", 0.0))
    power = f"{p:.1f}" if p == round(p, 1) else f"{p:g}"
    unusual = "" if rectified == rectified_target else ", rectified features" if rectified else ", features as they are"
    return f"{'RGN' if rectified_target else 'GN'}_{power}({mu:g}, sigma_{sigma}){unusual}"


def with_methods(found: pd.DataFrame) -> pd.DataFrame:
    """Cells with columns `group` and `row`, group by group as in Rectified LpJEPA's tables: ours, sparse, dense."""
    runs = records_of(found)
    labelled = found.assign(group=[_group(run) for run in runs], row=[method_label(run) for run in runs])
    order = {"ours": 0, "sparse": 1, "dense": 2}
    return labelled.sort_values("group", key=lambda groups: groups.map(order), kind="stable")


def dataset_label(run: Mapping[str, Any]) -> str:
    """The name of the images; for a folder of images the folder's: "imagenet100" for ~/data/ImageNet-100."""
    if str(run["data.name"]) != "image_folder":
        return str(run["data.name"])
    folder = PurePath(str(_setting(run, "data.path", "image_folder"))).name
    return re.sub(r"[^a-z0-9]", "", folder.lower())


def encoder_label(run: Mapping[str, Any]) -> str:
    """timm's name with the actual patch size: "vit_tiny_patch8_224" where model.patch_size is 8."""
    patch, name = _setting(run, "model.patch_size", 0), str(run["model.encoder"])
    return re.sub(r"patch\d+", f"patch{patch}", name) if patch else name


def with_models(found: pd.DataFrame) -> pd.DataFrame:
    """Cells with columns `encoder` and `dataset`."""
    runs = records_of(found)
    return found.assign(encoder=[*map(encoder_label, runs)], dataset=[*map(dataset_label, runs)])


def _group(run: Mapping[str, Any]) -> str:
    if str(run["method"]) == "rectified_lpjepa":
        return "ours" if str(_setting(run, "method.rectified", True)) == "True" else "dense"
    return "sparse" if "-" in method_label(run) else "dense"


def _setting(run: Mapping[str, Any], key: str, default: Any) -> Any:
    """A setting of a run; the default where a cell that has not begun lacks it."""
    value = run.get(key, default)
    return default if pd.isna(value) or value == "" else value
