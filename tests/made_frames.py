"""Frames of tables with levels, states and special characters, for the tests of their rendering."""

import pandas as pd

from analysis.table.cells import Quantity, TableCell

TWO = Quantity(label="a_b", metric="test/x", direction="max", spec=".2f")


def example() -> pd.DataFrame:
    columns = pd.MultiIndex.from_tuples([("1024", "a_b"), ("1024", "50 %"), ("4096", "a_b")])
    first = TableCell((-1.5,), (), ("r1",), (0,), quantity=TWO)
    half = TableCell((0.1,), ("running",), ("r2",), (0,), ("r3",), quantity=TWO)
    pair = TableCell((0.5, 0.75), (), ("r4", "r5"), (0, 1), quantity=TWO, bold=True)
    rows = [[0.25, pair, TableCell()], [first, TableCell((), ("diverged",), state_ids=("r6",)), half]]
    return pd.DataFrame(rows, index=pd.Index(["x|y", "z & z"], name="proj"), columns=columns, dtype=object)


def leveled() -> pd.DataFrame:
    """Two named levels of columns, as in LeJEPA's Table 1 d, and two of rows."""
    columns = pd.MultiIndex.from_product([[1024, 4096], [512, 2048]], names=["num_slices", "embed_dim"])
    index = pd.MultiIndex.from_tuples([("ours", "RGN_1.0(-3, sigma_GN)"), ("dense", "LeJEPA")], names=["group", "row"])
    return pd.DataFrame([[TableCell((1.0,), quantity=TWO)] * 4] * 2, index=index, columns=columns, dtype=object)
