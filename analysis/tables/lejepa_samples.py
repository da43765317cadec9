"""LeJEPA, Table 3 and Fig. 12: labels per class, with the encoder frozen and fine-tuned."""

import pandas as pd

from analysis.select.compared import cells
from analysis.table.cells import percent
from analysis.table.pivot import PivotTable

TITLE = "LeJEPA: labels per class; top-1 (%) of an offline linear probe (frozen) and of fine-tuning"
SAMPLES = ("all", "1", "2", "5", "10", "100", "1000")
METRICS = {  # frozen -> samples per class -> metric
    "no": {count: f"test/finetune{count.removeprefix('all')}_top1" for count in SAMPLES},
    "yes": {count: "test/linear_top1" if count == "all" else f"test/shot{count}_top1" for count in SAMPLES},
}


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows frozen or not and the encoder, columns samples per class that the data has."""
    found, parts = cells(runs), {}
    measured = [count for count in SAMPLES if any(metrics[count] in found for metrics in METRICS.values())] or ["all"]
    for frozen, metrics in METRICS.items():
        quantities = [percent(count, metrics[count]) for count in measured]
        part = PivotTable(rows={"encoder": "model"}, quantities=quantities, quantities_in="columns").of(found)
        parts[frozen] = part.set_axis(pd.Index(measured, name="samples per class"), axis=1)
    return pd.concat(parts, names=["frozen"])
