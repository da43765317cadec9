"""Tags of a sweep as values, and parameters in one form for comparison. Needs no pandas."""

import json
from collections.abc import Mapping
from typing import Any


def json_tag(tags: Mapping[str, str], name: str) -> Any:
    """The value of a JSON tag of the sweep; None in a store without that tag."""
    return json.loads(tags[name]) if name in tags else None


def canonical(value: Any) -> float | str:
    """A parameter's value for comparison: 1, 1.0 and "1.0" are equal, and "" stands for no value, as in the grid."""
    text = str(value)
    if value is None or text in ("nan", "<NA>"):
        return ""
    try:
        return float(text)
    except ValueError:
        return text
