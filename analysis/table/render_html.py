"""A frame of numbers as HTML, each number a link to its runs."""

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

import pandas as pd

from analysis.table.layout import Entry, layout_of

_STYLE = """<style>
table.sweep {border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; font: 14px sans-serif}
table.sweep caption {text-align: left; font-weight: bold; padding: 4px 0}
table.sweep th, table.sweep td {text-align: right; white-space: nowrap; padding: 3px 9px}
table.sweep .l {text-align: left}
table.sweep .span {text-align: center; border-bottom: 1px solid}
table.sweep tbody th {font-weight: normal}
table.sweep tbody, table.sweep .block > * {border-top: 1px solid}
table.sweep a {color: inherit; text-decoration: none}
table.sweep a:hover {text-decoration: underline}
p.sweep {font: 12px sans-serif; margin: 4px 0; max-width: 110ch}
</style>"""


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where the MLflow UI shows a run, or several side by side.

    Args:
        ui: its address.
        experiments: run id -> experiment id; a run that is not in it has no link.
    """

    ui: str = ""
    experiments: Mapping[str, str] = field(default_factory=dict)

    def to(self, run_ids: Sequence[str]) -> str:
        """The address for these runs, "" where there is none."""
        known = [run_id for run_id in run_ids if run_id in self.experiments]
        if not self.ui or not known:
            return ""
        places = sorted({self.experiments[run_id] for run_id in known})
        if len(known) == 1:
            return f"{self.ui}/#/experiments/{places[0]}/runs/{known[0]}"
        runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (known, places))
        return f"{self.ui}/#/compare-runs?runs={runs}&experiments={experiments}"


def to_html(frame: pd.DataFrame, *, title: str = "", notes: Sequence[str] = (), links: Links | None = None) -> str:
    """A fragment that brings its style, in ASCII: right in a notebook and as a file of any encoding."""
    layout = layout_of(frame)
    header = []
    for stub, spans in layout.upper():
        names = "".join(_tag("th", html.escape(name), "l") for name in stub)
        header.append(f"<tr>{names}{''.join(_tag('th', html.escape(text), 'span', span) for text, span in spans)}</tr>")
    sides = [*layout.align]
    lowest = "".join(_tag("th", html.escape(name), side) for name, side in zip(layout.lowest(), sides, strict=True))
    header.append(f"<tr>{lowest}</tr>")
    body = []
    for number, (labels, entries) in enumerate(layout.rows()):
        texts = "".join(_tag("th", html.escape(label), "l") for label in labels)
        texts += "".join(
            _tag("td", _linked(entry, links or Links()), side)
            for entry, side in zip(entries, sides[len(labels) :], strict=True)
        )
        start = '<tr class="block">' if number in layout.blocks else "<tr>"
        body.append(f"{start}{texts}</tr>")
    lines = [
        *(_STYLE, '<table class="sweep">'),
        *([f"<caption>{html.escape(title)}</caption>"] if title else []),
        *("<thead>", *header, "</thead>", "<tbody>", *body, "</tbody>"),
        "</table>",
        *(_tag("p", html.escape(note), "sweep") for note in notes),
    ]
    return "\n".join(lines).encode("ascii", "xmlcharrefreplace").decode()


def _linked(entry: Entry, links: Links) -> str:
    text = html.escape(entry.text)
    address = links.to(entry.run_ids)
    text = f'<a href="{html.escape(address)}">{text}</a>' if address else text
    return f"<b>{text}</b>" if entry.bold else text


def _tag(kind: str, content: str, style: str, span: int = 1) -> str:
    attributes = (f' colspan="{span}"' if span > 1 else "") + (f' class="{style}"' if style not in ("", "r") else "")
    return f"<{kind}{attributes}>{content}</{kind}>"
