"""The flat form of a config, {"method": "lejepa", "method.lamb": 0.05, ...}, and its hash, the cell key.

Tune, Optuna, MLflow and pandas see this form. It is complete: every field, not only those of the sweep.
"""

import dataclasses
import functools
import hashlib
import json
import operator
from collections.abc import Iterable, Mapping
from typing import Any

from jepa_train.base.errors import ConfigError, config_errors, nearest, require, short_repr
from jepa_train.base.validation import NAMES, conformed, field_hints
from jepa_train.config import TrainConfig
from jepa_train.methods import METHODS, Method, method_class

Scalar = str | int | float | bool
Flat = dict[str, Scalar]


def flatten(config: TrainConfig) -> Flat:
    """The complete flat form: {"method": name, "method.lamb": ..., "data.name": ..., "epochs": ...}."""
    keys = _fields(type(config.method))
    return {"method": config.method.name} | dict(zip(keys, operator.attrgetter(*keys)(config), strict=True))


@config_errors()
def unflatten(flat: Mapping[str, Any], *, base: TrainConfig | None = None) -> TrainConfig:
    """The config of a flat form; missing fields come from base, or from the defaults.

    A `method` other than the base's starts from that method's own defaults.

    Raises:
        ConfigError: an unknown key, a wrong type or a value out of range, in one line.
    """
    base = base or TrainConfig()
    method = _method_named(flat.get("method", base.method.name), base)
    types = field_types(type(method))
    for key in flat:
        if key not in types:
            having = [name for name, other in METHODS.items() if key in field_types(other)]
            where = f"method {method.name}, but of {', '.join(having)}" if having else "the config"
            remedy = f"; leave it out, or set method={having[0]}" if having else nearest(str(key), types)
            raise ConfigError(f"{key} is not a field of {where}{remedy}")
    values = {key: conformed(key, value, types[key]) for key, value in flat.items()}
    sections: dict[str, Any] = {}
    for top in dataclasses.fields(TrainConfig):
        current: Any = method if top.name == "method" else getattr(base, top.name)
        if not dataclasses.is_dataclass(type(current)):
            sections[top.name] = values.get(top.name, current)
            continue
        prefix = f"{top.name}."
        inner = {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
        with config_errors(prefix):  # completes the field's name, with which the message starts, to the dotted key
            sections[top.name] = _changed(current, inner) if inner else current
    return TrainConfig(**sections)


def parse(assignments: Iterable[str], *, base: TrainConfig) -> Flat:
    """The flat form of command-line assignments "key=value"; each value is read by the type of its field.

    Raises:
        ConfigError: a word that is no assignment, a key given twice, a value that cannot be read.
    """
    texts: dict[str, str] = {}
    for word in assignments:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{key} is not an assignment; write key=value, as in optim.lr=1e-3 (got {word!r})")
        if key in texts:
            raise ConfigError(f"{key} is given twice; keep one")
        texts[key] = text
    types = field_types(type(_method_named(texts.get("method", base.method.name), base)))
    return {key: _read(key, text, types.get(key)) for key, text in texts.items()}


@functools.cache
def field_types(method: type[Method]) -> Mapping[str, Any]:
    """Flat keys of a config with this method, with their types."""
    return {"method": str} | {key: kind for key, (_, kind) in _fields(method).items()}


def type_names() -> dict[str, str]:
    """The type of each flat key of any config: "int", "float", "bool" or "str"."""
    types = {key: kind for method in METHODS.values() for key, kind in field_types(method).items()}
    return {key: kind.__name__ if isinstance(kind, type) else "str" for key, kind in types.items()}


def cell_fields(config: TrainConfig) -> Flat:
    """The flat form without fields that do not affect the result: paths, speed, further measurements."""
    fields = _fields(type(config.method))
    decides = {key for key, (field, _) in fields.items() if field.metadata.get("cell", True)} | {"method"}
    return {key: value for key, value in flatten(config).items() if key in decides}


def key_fields(config: TrainConfig) -> Flat:
    """The cell fields without later ones at their default: a cell keeps the key it had before they were added."""
    later = later_fields().get("*", {}) | later_fields().get(config.method.name, {})
    return {key: value for key, value in cell_fields(config).items() if key not in later or later[key] != str(value)}


def cell_key(config: TrainConfig) -> str:
    """Hash of everything that affects the result, and of nothing else: 16 hex digits that name the cell."""
    return _hash(key_fields(config))


def group_key(config: TrainConfig) -> str:
    """The cell key without the seed: 16 hex digits that are equal for the cells to average."""
    return _hash({key: value for key, value in key_fields(config).items() if key != "seed"})


def setting_fields(config: TrainConfig) -> dict[str, str]:
    """Flat keys of the fields that set another one, with the key of that other one."""
    fields = _fields(type(config.method)).items()
    return {
        key: f"{key.rpartition('.')[0]}.{field.metadata['sets']}"
        for key, (field, _) in fields
        if "sets" in field.metadata
    }


def later_fields() -> Mapping[str, dict[str, str]]:
    """Fields added after schema 1, by flat key, with their defaults as MLflow stores them.

    Fields of every config are listed under "*", a method's own under its name.
    """
    return _later_fields_of(tuple(METHODS.items()))


@functools.cache
def _later_fields_of(methods: tuple[tuple[str, type[Method]], ...]) -> Mapping[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, method in methods:
        for key, (field, kind) in _fields(method).items():
            if "schema" in field.metadata:
                owner = name if key.startswith("method.") else "*"
                found.setdefault(owner, {})[key] = str(conformed(key, field.default, kind))
    return found


def _hash(fields: Flat) -> str:
    text = json.dumps(fields, sort_keys=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _changed(section: Any, values: Mapping[str, Any]) -> Any:
    """A section with other values. Fields that follow from another one are computed anew."""
    fields = {field.name: field for field in dataclasses.fields(section)}
    following = {
        field.metadata["sets"]: fields[field.metadata["sets"]].default
        for name, field in fields.items()
        if "sets" in field.metadata and (getattr(section, name) or name in values)
    }
    new = dataclasses.replace(section, **{**following, **values})
    for name in following.keys() & values.keys():
        both = f"{name} follows from another field, which makes it {getattr(new, name)}, got {values[name]}"
        require(getattr(new, name) == values[name], f"{both}; set one of the two")
    return new


@functools.cache
def _fields(method: type[Method]) -> Mapping[str, tuple[dataclasses.Field[Any], Any]]:
    """Fields of a config with this method, by flat key, with their types."""
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
    """The base's own method if it has this name, otherwise that method with its defaults."""
    return base.method if name == base.method.name else method_class(name)()


def _read(key: str, text: str, kind: Any) -> Scalar:
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return kind(text) if kind in (int, float) else text
    except (KeyError, ValueError):
        raise ConfigError(f"{key} must be {NAMES[kind]}, got {short_repr(text)}") from None
