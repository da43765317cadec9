"""Mutants: valid sweep files with one mistake each, by a seeded generator that knows what the mistake breaks."""

import ast
import inspect
import random
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from optuna import distributions

from jepa_train.config import schema as config_module
from jepa_train.config.flat import field_types
from jepa_train.config.presets import PRESETS
from jepa_train.evaluation.glossary import ON_VAL, ON_VAL_BY_PROTOCOL
from jepa_train.methods import METHODS, LeJEPA, RectifiedLpJEPA
from sweeps.engine.spec import objective, sweep
from tests.mistakes import MISTAKES, NEVER, NUMBERS, VALUES

HEAD = '''"""A study."""
import dataclasses, os, sys, threading
import numpy as np
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from sweeps.engine import Asha, BestOf, LabelFree, Sweep, main
from jepa_train.config import DataConfig, ModelConfig, OptimConfig, ProbeConfig, TrainConfig, ViewsConfig
from jepa_train.methods import LeJEPA, RectifiedLpJEPA
from jepa_train.config.presets import DIGITS, PRESETS
'''
TAIL = "\nif __name__ == '__main__':\n    sys.exit(main(SWEEP, __file__))\n"

_BASE = """TrainConfig(method=LeJEPA(lamb=0.02, num_slices=64),
    optim=OptimConfig(name='adamw', lr=5e-3, weight_decay=1e-3),
    views=ViewsConfig(num_global=2, num_local=0, flip=0.0), epochs=20, global_batch=128, precision='fp32')"""
_LR = "FloatDistribution(low=1e-4, high=1e-2, log=True)"
_SPACE = f"""'optim.lr': {_LR}, 'method.num_slices': IntDistribution(low=16, high=64, step=16),
    'views.flip': FloatDistribution(low=0.0, high=0.5, step=0.1),
    'precision': CategoricalDistribution(choices=['fp32', 'bf16'])"""

SWEEPS = {  # valid ones; in the current directory, images/ is a folder of images
    "grid": f"""base={_BASE}, seeds=(0, 1), references=({{'epochs': 0}}, {{'optim.name': 'lars'}}),
        grid={{'method.lamb': [0.01, 0.05, 0.1], 'optim.lr': [1e-3, 5e-3], 'precision': ['fp32', 'bf16']}}""",
    "grids": """base=dataclasses.replace(DIGITS, epochs=20), objective='val/projector_top1', cpus_per_worker=1,
        grid=[{'method.lamb': [0.01, 0.05], 'views.num_local': [0]},
            {'method.lamb': [0.2, 0.3], 'views.num_local': [2, 4]}]""",
    "search": f"""base={_BASE}, space={{{_SPACE}}}, trials=8, sampler='gp', objective='val/probe_top1',
        early_stopping=Asha(first=2, eta=3), references=({{'epochs': 0}},)""",
    "fair": f"""base={_BASE}, grid={{'method.lamb': [0.01, 0.05], 'model.encoder': ['test_resnet']}},
        space={{{_SPACE}}}, trials=4, seeds=(0, 1, 2), objective=LabelFree(alpha=0.4),
        early_stopping=Asha(first=2, eta=2)""",
    "goals": f"""base=TrainConfig(method=RectifiedLpJEPA(p=1.0, mu=0.0), epochs=10), trials=4, sampler='nsga2',
        space={{'optim.lr': {_LR}, 'method.p': FloatDistribution(low=0.5, high=2.0)}},
        objective={{'val/probe_top1': 'max', 'val/nonzero_fraction': 'min'}}""",
    "workers": """base=TrainConfig(method=RectifiedLpJEPA(sigma_mode='gn', num_slices=64), global_batch=96), workers=2,
        grid={'method.p': [0.5, 1.0], 'method.mu': [-1.0, 0.0], 'method.sigma_mode': ['gn', 'rgn']},
        gpus_per_worker=0""",
    "folder": """base=TrainConfig(data=DataConfig(name='image_folder', path='images', image_size=16), epochs=2),
        grid={'method.lamb': [0.1, 0.2], 'data.on_corrupt': ['skip']}""",
}


@dataclass(frozen=True)
class Mutant:
    """A sweep's expression and its whole file, and the words of which the answer must name one."""

    sweep: str
    source: str
    names: tuple[str, ...]


def source_of(sweep: str) -> str:
    """The sweep file of an expression."""
    return f"{HEAD}SWEEP = {sweep}{TAIL}"


def mutants(seed: int) -> Iterator[Mutant]:
    """Different sweep files without end, each with one mistake; what is valid by chance is left out."""
    rng = random.Random(seed)
    seen: set[str] = set()
    while True:
        tree = _parsed(rng.choice([*SWEEPS.values()]))
        names = rng.choice(_MUTATIONS)(rng, tree)
        sweep = ast.unparse(tree)
        source = source_of(sweep)
        if names is None or source in seen:
            continue
        seen.add(source)
        if names[:1] == ("import",):
            source = re.sub(
                rf"^(from jepa_train.*)\b{names[2]}\b", rf"\1{names[1]}", source, count=1, flags=re.MULTILINE
            )
        yield Mutant(sweep, source, names)


def _parsed(fields: str) -> ast.Call:
    call = ast.parse(f"Sweep(name='study', purpose=__doc__, {fields})", mode="eval").body
    assert isinstance(call, ast.Call)
    return call


# Where in a sweep a value stands.

_OWN = {"purpose": {"text"}, "early_stopping": {"none"}, "gpus_per_worker": {"int", "float"}}
_OWN |= {name: {"int"} for name in ("trials", "workers", "cpus_per_worker")}
_TAKES = {int: {"int"}, float: {"int", "float"}, str: {"text"}, bool: {"bool"}}
_TYPES: dict[str, Any] = {"seeds": int, **field_types(LeJEPA), **field_types(RectifiedLpJEPA)}
_SECTIONS = {"DataConfig": "data.", "ViewsConfig": "views.", "ModelConfig": "model.", "OptimConfig": "optim."}
_SECTIONS |= {cls.__name__: "method." for cls in METHODS.values()} | {"TrainConfig": "", "dataclasses.replace": ""}
_CLASSES: dict[str, Any] = {
    cls.__name__: cls
    for values in (*map(vars, (distributions, config_module, objective, sweep)), METHODS)
    for cls in values.values()
    if inspect.isclass(cls)
}
_METRICS = {f"val/{name}" for names in (ON_VAL, *ON_VAL_BY_PROTOCOL.values()) for name in names}


@dataclass(frozen=True)
class Spot:
    """A value in a sweep: how to replace it, what an answer about it names, and which of VALUES may be right there."""

    put: Callable[[ast.expr], None]
    names: tuple[str, ...]
    takes: frozenset[str]


def _spots(node: ast.expr, key: str) -> Iterator[Spot]:
    """Every value below a node that belongs to a field or a dotted key."""
    if isinstance(node, ast.List | ast.Tuple):
        for place, part in enumerate(node.elts):
            yield from _at(lambda new, at=node.elts, n=place: at.__setitem__(n, new), part, key)
    elif isinstance(node, ast.Dict):
        for place, (name, part) in enumerate(zip(node.keys, node.values, strict=True)):
            assert isinstance(name, ast.Constant)
            inner = key if key == "objective" else name.value
            yield from _at(lambda new, at=node.values, n=place: at.__setitem__(n, new), part, inner)
    elif isinstance(node, ast.Call):
        owner = ast.unparse(node.func)
        for word in node.keywords:
            name = str(word.arg)
            put = lambda new, at=word: setattr(at, "value", new)  # noqa: E731
            if owner in _SECTIONS:
                yield from _at(put, word.value, f"{_SECTIONS[owner]}{name}")
            elif name == "choices":
                yield Spot(put, (name, key, owner), frozenset())
                yield from _spots(word.value, key)
            elif "Distribution" in owner and name != "log":  # Optuna makes numbers of what it can
                takes = {"int", "float", "bool", "scalar"} | ({"none"} if name == "step" else set())
                yield Spot(put, (name, key, owner), frozenset(takes))
            elif owner == "Sweep":
                yield Spot(put, (name,), frozenset(_OWN.get(name, ())))
                yield from _spots(word.value, name)
            elif name != "log":
                kind = typing.get_type_hints(_CLASSES[owner])[name]
                yield Spot(put, (name,), frozenset(_TAKES.get(kind, ())))


def _at(put: Callable[[ast.expr], None], node: ast.expr, key: str) -> Iterator[Spot]:
    scalar = isinstance(node, ast.Constant | ast.UnaryOp)
    takes = _TAKES.get(_TYPES.get(key), set()) if scalar else set()
    yield Spot(put, (key.rpartition(".")[2],), frozenset(takes))
    yield from _spots(node, key)


# Mutations: each changes the tree and returns what the answer must name, or None where it made no mistake.


def _typo(rng: random.Random, word: str) -> str:
    """A letter lost, doubled, swapped with its neighbour, or another."""
    at = rng.randrange(len(word))
    ends = [word[at + 1 :], word[at] + word[at:], word[at : at + 2][::-1] + word[at + 2 :]]
    return word[:at] + rng.choice([*ends, rng.choice("abcdefghijklmnopqrstuvwxyz") + word[at + 1 :]])


def _wrong_type(rng: random.Random, tree: ast.Call) -> tuple[str, ...] | None:
    spot = rng.choice([*_spots(tree, "")])
    value, kind = rng.choice(VALUES)
    spot.put(ast.parse(value, mode="eval").body)
    return None if kind in spot.takes else spot.names


def _misspelt_key(rng: random.Random, tree: ast.Call) -> tuple[str, ...] | None:
    """A dotted key or a metric."""
    keys = [key for node in ast.walk(tree) if isinstance(node, ast.Dict) for key in node.keys]
    if not keys:
        return None
    key = rng.choice(keys)
    assert isinstance(key, ast.Constant)
    before, key.value = key.value, _typo(rng, key.value)
    known = _METRICS if before in _METRICS else {*_TYPES}
    return None if key.value in known else (key.value, "objective")


def _misspelt_field(rng: random.Random, tree: ast.Call) -> tuple[str, ...] | None:
    """A keyword of one of the calls."""
    call = rng.choice([node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.keywords])
    word = rng.choice(call.keywords)
    word.arg = _typo(rng, str(word.arg))
    made = _CLASSES.get(ast.unparse(call.func), config_module.TrainConfig)
    return (word.arg,) if word.arg.isidentifier() and word.arg not in inspect.signature(made).parameters else None


def _misspelt_name(rng: random.Random, tree: ast.Call) -> tuple[str, ...] | None:
    """A class, a constant, a preset, an attribute, in Python's own words."""
    base = next(word for word in tree.keywords if word.arg == "base")
    typo = _typo(rng, rng.choice(["DIGITS", "epochs", "PRESETS", *PRESETS, *_CLASSES]))
    if typo in PRESETS or typo in HEAD or not typo.isidentifier():
        return None
    form = rng.choice([typo, f"DIGITS.{typo}", f"PRESETS[{typo!r}]", f"dataclasses.{typo}", f"{typo}(epochs=3)"])
    base.value = ast.parse(form, mode="eval").body
    return (typo,)


def _misspelt_import(rng: random.Random, _: ast.Call) -> tuple[str, ...] | None:
    """A name or a module of ours that is not there."""
    ours = [line for line in HEAD.splitlines() if "jepa_train" in line]
    name = rng.choice(re.findall(r"\w+", " ".join(line.replace("from jepa_train.", "") for line in ours)))
    typo = _typo(rng, name)
    return None if name == "import" or typo in HEAD or not typo.isidentifier() else ("import", typo, name)


def _misspelt_word(rng: random.Random, tree: ast.Call) -> tuple[str, ...] | None:
    """A word that is one of a few: sampler, precision, method, protocol, metric, direction."""
    choices = {"precision": "fp32", "method": "lejepa", "optim.name": "lars", "data.name": "digits"}
    choices |= {"model.encoder": "test_resnet", "probe.protocols": "linear", "data.on_corrupt": "fail"}
    key, word = rng.choice([*choices.items(), *[("sampler", name) for name in ("tpe", "random", "nsga2", "qmc")]])
    typo = _typo(rng, word)
    if typo == word or typo == word + ",":
        return None
    name, value = ("sampler", repr(typo)) if key == "sampler" else ("references", f"({{{key!r}: {typo!r}}},)")
    _set(tree, name, value)
    return (key.rpartition(".")[2],)


def _other_metric(rng: random.Random, tree: ast.Call) -> tuple[str, ...] | None:
    metric = rng.choice(sorted(_METRICS))
    name = metric.removeprefix("val/")
    wrong = _typo(rng, metric)
    if wrong in _METRICS:
        return None
    unmeasured = name not in (*ON_VAL, *ON_VAL_BY_PROTOCOL["linear"], *ON_VAL_BY_PROTOCOL["knn"])
    forms = [repr(wrong), f"'test/{name}'", f"'train/{name}'", repr(name), f"[{metric!r}]", f"({metric!r},)"]
    forms += [f"{{{metric!r}: {way}}}" for way in ("'up'", "'MAX'", "None", "1")] + [f"{{{wrong!r}: 'max'}}"]
    _set(tree, "objective", rng.choice([*forms, repr(metric)] if unmeasured else forms))
    return ("objective",)


def _out_of_range(rng: random.Random, tree: ast.Call) -> tuple[str, ...] | None:
    """A number that no config takes: in the grid, a reference, or the space."""
    key = rng.choice([*NUMBERS])
    bad = rng.choice([*NUMBERS[key], *NEVER])
    forms = [f"grid={{{key!r}: [{bad}]}}", f"grid=[{{'epochs': [7]}}, {{'epochs': [9], {key!r}: [{bad}]}}]"]
    forms += [f"references=({{{key!r}: {bad}}},)", f"space={{{key!r}: CategoricalDistribution([{bad}])}}, trials=3"]
    tree.keywords = _parsed(f"base=DIGITS, {rng.choice(forms)}").keywords
    return (key.rpartition(".")[2],)


def _listed(rng: random.Random, tree: ast.Call) -> tuple[str, ...] | None:
    """One of MISTAKES."""
    name, _, fields = rng.choice(MISTAKES.strip().splitlines()).partition("|")
    prime = rng.choice(["3", "5", "7", "11", "13", "17", "19"])
    changed = ast.parse(f"Sweep({fields.replace('#', prime).replace('LR', _LR)})", mode="eval").body
    assert isinstance(changed, ast.Call)
    own = {word.arg: word for word in (*_parsed("base=DIGITS").keywords, *changed.keywords)}
    tree.keywords = [*own.values()]
    return (name.strip(),)


def _missing_field(rng: random.Random, tree: ast.Call) -> tuple[str, ...] | None:
    """A field without a default is left out, or given by its place."""
    word = rng.choice([word for word in tree.keywords if word.arg in ("name", "purpose", "base")])
    tree.keywords.remove(word)
    tree.args = rng.choice([[], [word.value]])
    return (str(word.arg), "Sweep")


def _set(tree: ast.Call, name: str, value: str) -> None:
    tree.keywords = [word for word in tree.keywords if word.arg != name]
    tree.keywords.append(ast.keyword(name, ast.parse(value, mode="eval").body))


_MUTATIONS: list[Callable[[random.Random, ast.Call], tuple[str, ...] | None]] = [
    *[_listed] * 8,
    *[_wrong_type] * 6,
    *[_misspelt_key, _misspelt_field] * 2,
    *[_misspelt_name, _misspelt_import, _misspelt_word, _other_metric, _out_of_range, _missing_field],
]
