"""The tables of docs/config.md: every field with the type and default of its dataclass, and a description.

Run: python -m pytest tests/unit/test_config_page.py
Renew the tables: python tests/unit/test_config_page.py. Descriptions in the page are kept; new fields get an empty one.
"""

import dataclasses
import re
import types
import typing
from pathlib import Path

from jepa_train.config import TrainConfig
from jepa_train.config.flat import cell_fields, flatten
from jepa_train.methods import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "config.md"
ROW = re.compile(r"^\| `([\w.]+)` \|.*\| ([^|]*) \|$", re.MULTILINE)
HEADER = ["| key | type | default | in the cell key | meaning |", "|---|---|---|---|---|"]


def type_name(kind: typing.Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return ", ".join(f'"{word}"' for word in typing.get_args(kind))
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(type_name(part) for part in typing.get_args(kind))
    if typing.get_origin(kind) is typing.Annotated:
        return type_name(typing.get_args(kind)[0])
    return {int: "whole number", float: "number", bool: "true, false", str: "text"}.get(kind, str(kind))


def table(prefix: str, config: typing.Any, in_key: typing.Container[str], meanings: dict[str, str]) -> str:
    """A row per field of a section, without the sections inside it."""
    hints, lines = typing.get_type_hints(type(config)), [*HEADER]
    for field in dataclasses.fields(config):
        key, value = prefix + field.name, getattr(config, field.name)
        if not dataclasses.is_dataclass(value):
            default = f'"{value}"' if isinstance(value, str) else str(value).lower()
            part = "yes" if key in in_key else "no"
            lines.append(f"| `{key}` | {type_name(hints[field.name])} | {default} | {part} | {meanings.get(key, '')} |")
    return "\n".join(lines) + "\n"


def page_with_tables() -> str:
    """The page with every marked table made anew."""
    page = PAGE.read_text()
    for label in re.findall(r"<!-- fields: (.*) -->", page):
        section, _, method = label.partition(" ")
        config = TrainConfig(method=METHODS[method]()) if method else TrainConfig()
        part, prefix = (config, "") if section == "run" else (getattr(config, section), f"{section}.")
        before, begin, rest = page.partition(f"<!-- fields: {label} -->\n")
        old, end, after = rest.partition("<!-- end -->")
        page = before + begin + table(prefix, part, cell_fields(config).keys(), dict(ROW.findall(old))) + end + after
    return page


def test_the_tables_are_current() -> None:
    assert PAGE.read_text() == page_with_tables(), "run python tests/unit/test_config_page.py"


def test_every_field_of_every_method_has_a_meaning() -> None:
    rows = dict(ROW.findall(PAGE.read_text()))
    fields = {key for method in METHODS.values() for key in flatten(TrainConfig(method=method()))}
    assert {key for key in fields if not rows.get(key)} == {"method"}


if __name__ == "__main__":
    PAGE.write_text(page_with_tables())
