"""Labels of rows and columns, as the papers name methods, data sets and settings."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from analysis.select.selection import records_of

_NAMES = {
    "lejepa": "LeJEPA",
    "rectified_lpjepa": "Rectified LpJEPA",
    "visreg": "VISReg",
    "kerjepa": "KerJEPA",
    "vicreg": "VICReg",
    "barlow_twins": "Barlow Twins",
    "simclr": "SimCLR",
    "ncl": "NCL",
}
_NONNEG = {"relu": "ReLU", "rep_relu": "RepReLU"}
_SYMBOLS = {
    "method.lamb": "λ",
    "method.mu": "μ",
    "method.temperature": "τ",
    "method.num_slices": "slices",
    "optim.weight_decay": "weight decay",
    "global_batch": "batch",
    "views.num_global": "global views",
    "views.num_local": "local views",
    "data.name": "data",
}
_METRIC_WORDS = {
    r"\bknn(\d+)": r"\1-NN",
    r"\bknn": "kNN",
    r"\bshot(\d+)": r"\1-shot",
    r"(.+)_projector_top1$": r"projector \1 top-1",
    r"_top1$": " top-1",
}


def axis_labels(keys: Sequence[str]) -> dict[str, str]:
    """Config key -> symbol or name, by default the last part of the key; the key itself where two would be equal."""
    names = {key: _SYMBOLS.get(key, key.rpartition(".")[2]) for key in keys}
    return {key: name if [*names.values()].count(name) == 1 else key for key, name in names.items()}


def metric_label(name: str) -> str:
    """ "linear top-1" for test/linear_top1, "val probe top-1", "train sigreg": every split but test is named."""
    split, _, text = name.partition("/")
    for pattern, words in _METRIC_WORDS.items():
        text = re.sub(pattern, words, text)
    return text.replace("_", " ") if split == "test" else f"{split} {text.replace('_', ' ')}"


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


def dataset_label(run: Mapping[str, Any]) -> str:
    """The name of the images; for a folder of images the folder's: "imagenet100" for ~/data/ImageNet-100."""
    if not str(run["data.name"]).endswith("_folder"):
        return str(run["data.name"])
    folder = PurePath(str(_setting(run, "data.path", "image_folder"))).name
    return re.sub(r"[^a-z0-9]", "", folder.lower())


def encoder_label(run: Mapping[str, Any]) -> str:
    """timm's name with the actual patch size: "vit_tiny_patch8_224" where model.patch_size is 8."""
    patch, name = _setting(run, "model.patch_size", 0), str(run["model.encoder"])
    return re.sub(r"patch\d+", f"patch{patch}", name) if patch else name


def _group(run: Mapping[str, Any]) -> str:
    if str(run["method"]) == "rectified_lpjepa":
        return "ours" if str(_setting(run, "method.rectified", True)) == "True" else "dense"
    return "sparse" if "-" in method_label(run) else "dense"


def _setting(run: Mapping[str, Any], key: str, default: Any) -> Any:
    """A setting of a run; the default where a cell that has not begun lacks it."""
    value = run.get(key, default)
    return default if pd.isna(value) or value == "" else value


LABELS: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "encoder": encoder_label,
    "method_name": lambda run: _NAMES.get(str(run["method"]), str(run["method"])),
    "dataset": dataset_label,
    "row": method_label,
    "group": _group,
    "views": lambda run: int(run["views.num_global"]) + int(run["views.num_local"]),
    "domain": lambda run: f"[-{float(run['method.t_max']):g}, {float(run['method.t_max']):g}]",
    "predictor": lambda run: "yes" if str(run["model.predictor"]) == "True" else "no",
    "swa": lambda run: "yes" if float(run["model.swa_decay"]) + int(_setting(run, "model.swa_start", 0)) > 0 else "no",
    "layers": lambda run: f"{run['model.projector_layers']}L",
    "target": lambda run: {"rgg": "RGN", "gg": "GN"}.get(run["method.target"], ""),
    "features": lambda run: {"True": "z+ = ReLU(z)", "False": "z"}.get(str(run["method.rectified"]), ""),
}


def labelled(found: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Cells with those of the columns that LABELS defines; by group in the order of Rectified LpJEPA's tables."""
    derived = [name for name in names if name in LABELS]
    runs = records_of(found) if derived else []  # slow for thousands of runs
    found = found.assign(**{name: [*map(LABELS[name], runs)] for name in derived})
    order = {"ours": 0, "sparse": 1, "dense": 2}
    by_group = "group" in names
    return found.sort_values("group", key=lambda groups: groups.map(order), kind="stable") if by_group else found
