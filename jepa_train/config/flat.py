"""The flat form of a config, {"method": "lejepa", "method.lamb": 0.05, ...}, and its hash, the cell key.

This is what Tune, Optuna, MLflow and pandas see. It is complete: every field, not only the swept ones.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from jepa_train.base.errors import ConfigError, config_errors, nearest
from jepa_train.base.validation import NAMES, conformed, field_hints
from jepa_train.config import TrainConfig
from jepa_train.methods import METHODS, Method

Scalar = str | int | float | bool
Flat = dict[str, Scalar]


def flatten(config: TrainConfig) -> Flat:
    """The complete flat form: {"method": name, "method.lamb": ..., "data.name": ..., "epochs": ...}."""
    flat: Flat = {}
    for top in dataclasses.fields(config):
        value = getattr(config, top.name)
        if not dataclasses.is_dataclass(value):
            flat[top.name] = value
            continue
        if top.name == "method":
            flat["method"] = config.method.name
        for inner in dataclasses.fields(value):
            flat[f"{top.name}.{inner.name}"] = getattr(value, inner.name)
    return flat


@config_errors()
def unflatten(flat: Mapping[str, Any], *, base: TrainConfig | None = None) -> TrainConfig:
    """The config of a flat form; what it leaves out comes from base, or from the defaults.

    A `method` other than the base's starts from that method's own defaults.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range, in one line.
    """
    base = base or TrainConfig()
    method = _method_named(flat.get("method", base.method.name), base)
    types = field_types(type(method))
    for key in flat:
        if key not in types:
            raise ConfigError(f"{key} is not a field of the config{nearest(str(key), types)}")
    values = {key: conformed(key, value, types[key]) for key, value in flat.items()}
    sections: dict[str, Any] = {}
    for top in dataclasses.fields(TrainConfig):
        current: Any = method if top.name == "method" else getattr(base, top.name)
        if not dataclasses.is_dataclass(type(current)):
            sections[top.name] = values.get(top.name, current)
            continue
        prefix = f"{top.name}."
        inner = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        with config_errors(prefix):  # a section's message starts with the field's name: complete it to the dotted key
            sections[top.name] = dataclasses.replace(current, **inner) if inner else current
    return TrainConfig(**sections)


def parse(assignments: Iterable[str], *, base: TrainConfig) -> Flat:
    """The flat form of command-line words `key=value`; values are read by the type of their field."""
    words = [word.partition("=") for word in assignments]
    for key, equals, value in words:
        if not equals:
            raise ConfigError(f"{key} is not an assignment; write key=value, as in optim.lr=1e-3 (got {key + value!r})")
    texts = {key: value for key, _, value in words}
    if len(texts) < len(words):
        twice = next(key for key in texts if sum(word[0] == key for word in words) > 1)
        raise ConfigError(f"{twice} is given twice; keep one")
    types = field_types(type(_method_named(texts.get("method", base.method.name), base)))
    return {key: _read(key, text, types[key]) if key in types else text for key, text in texts.items()}


@functools.cache
def field_types(method: type[Method]) -> Mapping[str, Any]:
    """Every flat key of a config with this method, and its type."""
    return {"method": str} | {key: kind for key, (_, kind) in _fields(method).items()}


def type_names() -> dict[str, str]:
    """The type of every flat key of any config: "int", "float", "bool" or "str"."""
    types = {key: kind for method in METHODS.values() for key, kind in field_types(method).items()}
    return {key: kind.__name__ if isinstance(kind, type) else "str" for key, kind in types.items()}


def cell_fields(config: TrainConfig) -> Flat:
    """The flat form without what decides no result: where things lie, how fast they run, what else is measured."""
    places = _places(type(config.method))
    return {key: value for key, value in flatten(config).items() if key not in places}


def key_fields(config: TrainConfig) -> Flat:
    """The cell fields without later ones at their default: a cell keeps the key it had before they were added."""
    later = later_fields().get("*", {}) | later_fields().get(config.method.name, {})
    return {key: value for key, value in cell_fields(config).items() if key not in later or later[key] != str(value)}


def cell_key(config: TrainConfig) -> str:
    """16 hex digits that name the cell: the hash of everything that decides the result, and of nothing else."""
    text = json.dumps(key_fields(config), sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@functools.cache
def later_fields() -> Mapping[str, dict[str, str]]:
    """The fields added after schema 1, by flat key, with their defaults as MLflow stores them.

    Those of every config are listed under "*", a method's own under its name.
    """
    found: dict[str, dict[str, str]] = {}
    for name, method in METHODS.items():
        for key, (field, kind) in _fields(method).items():
            if "schema" in field.metadata:
                owner = name if key.startswith("method.") else "*"
                found.setdefault(owner, {})[key] = str(conformed(key, field.default, kind))
    return found


@functools.cache
def _places(method: type[Method]) -> frozenset[str]:
    """The flat keys of a config with this method that are no part of a cell."""
    return frozenset(key for key, (field, _) in _fields(method).items() if not field.metadata.get("cell", True))


@functools.cache
def _fields(method: type[Method]) -> Mapping[str, tuple[dataclasses.Field[Any], Any]]:
    """Every field of a config with this method, by flat key, and its type."""
    fields: dict[str, tuple[dataclasses.Field[Any], Any]] = {}
    for top in dataclasses.fields(TrainConfig):
        section = method if top.name == "method" else field_hints(TrainConfig)[top.name]
        if dataclasses.is_dataclass(section):
            inner = field_hints(section)
            fields |= {f"{top.name}.{field.name}": (field, inner[field.name]) for field in dataclasses.fields(section)}
        else:
            fields[top.name] = (top, section)
    return fields


def _method_named(name: Any, base: TrainConfig) -> Method:
    """The base's own method when it has this name, otherwise that method with its defaults."""
    if not isinstance(name, str) or name not in METHODS:
        raise ConfigError(f"method must be a known method, got {name!r}{nearest(str(name), METHODS)}")
    return base.method if name == base.method.name else METHODS[name]()


def _read(key: str, text: str, kind: Any) -> Scalar:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{key} must be true or false, got {text!r}")
        return text.lower() == "true"
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise ConfigError(f"{key} must be {NAMES[kind]}, got {text!r}") from None
    return text
