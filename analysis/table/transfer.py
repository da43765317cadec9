"""Tables of transfer: blocks of rows by protocol, and a column for each data set that the runs were judged on."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.table.cells import percent
from analysis.table.pivot import pivot

MEAN = "avg"
_NOTHING = "no other data set was judged yet: the sweep's file with --evaluate probe.transfer=NAME=FOLDER,... does it"


def transfer(
    found: pd.DataFrame, *, rows: Mapping[str, str], protocols: Mapping[Any, str], names: Sequence[str]
) -> pd.DataFrame:
    """Top-1 on each data set, and, of the runs that have all of them, the mean over data sets.

    Args:
        found: cells; their metrics are named transfer/<data set>/<protocol>.
        protocols: labels of a block -> the end of the metric's name.
        names: of those labels.
    """
    matches = [re.fullmatch(r"transfer/(?!avg/)([^/]+)/(.+)", str(name)) for name in found]
    datasets = sorted({match[1] for match in matches if match and match[2] in protocols.values()})
    blocks = []
    for protocol in protocols.values():
        scores = found.reindex(columns=[f"transfer/{name}/{protocol}" for name in datasets]).astype(float)
        own = found.assign(**{f"transfer/{MEAN}/{protocol}": scores.mean(axis=1, skipna=False)})
        quantities = [percent(name, f"transfer/{name}/{protocol}") for name in [*datasets, MEAN]]
        block = pivot(own, rows=rows, columns={}, quantities=quantities, quantities_in="columns")
        block.columns = pd.Index([one.label for one in quantities], name="data set")
        blocks.append(block)
    frame = pd.concat(blocks, keys=[*protocols], names=[*names])
    frame.attrs["notes"] = [] if datasets else [_NOTHING]
    return frame
