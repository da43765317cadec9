"""Rows of benchmarks as Markdown and as JSON."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, ClassVar, Protocol


class Row(Protocol):
    """Row of a table; consecutive rows of one type make one table."""

    HEADER: ClassVar[tuple[str, ...]]
    NOTE: ClassVar[str]

    def cells(self) -> tuple[str, ...]:
        """One text per column of HEADER."""
        ...

    def record(self) -> dict[str, Any]:
        """Numbers of the row, for the JSON file."""
        ...


def as_markdown(rows: Sequence[Row], machine: Mapping[str, str]) -> str:
    """Pipe table per type of row, each followed by its note; the machine comes last."""
    parts = []
    for (header, note), group in groupby(rows, key=lambda row: (row.HEADER, row.NOTE)):
        parts += [_table(header, [row.cells() for row in group]), note]
    parts.append(", ".join(f"{name} {value}" for name, value in machine.items()))
    return "\n\n".join(parts) + "\n"


def as_json(rows: Mapping[str, Sequence[Row]], machine: Mapping[str, str]) -> str:
    """{"machine": {..}, "benchmarks": {name: [row, ..]}}, times in seconds unless their names say otherwise."""
    records = {name: [row.record() for row in group] for name, group in rows.items()}
    return json.dumps({"machine": machine, "benchmarks": records}, indent=1) + "\n"


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) + " |"
        for line in (header, rule, *lines)
    )
