"""LeJEPA, Table 3 and Fig. 12: labels per class, with the encoder frozen and fine-tuned."""

import pandas as pd

from analysis.select.compared import cells
from analysis.select.labels import with_models
from analysis.table.cells import percent
from analysis.table.pivot import pivot

TITLE = "LeJEPA: labels per class; top-1 (%) of a linear probe (frozen) and of fine-tuning"
SAMPLES = (1, 2, 5, 10, 100, 1000)
METRICS = {
    "no": {"all": "finetune_top1"} | {str(count): f"finetune{count}_top1" for count in SAMPLES},
    "yes": {"all": "linear_top1"} | {str(count): f"shot{count}_top1" for count in SAMPLES},
}


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows frozen or not and the encoder, columns samples per class that the data has."""
    found, parts = with_models(cells(runs)), {}
    measured = [count for count in METRICS["yes"] if any(f"test/{kind[count]}" in found for kind in METRICS.values())]
    for frozen, metrics in METRICS.items():
        quantities = [percent(count, f"test/{metrics[count]}") for count in measured or ["all"]]
        part = pivot(found, rows={"encoder": "model"}, columns={}, quantities=quantities, quantities_in="columns")
        part.columns = pd.Index([one.label for one in quantities], name="samples per class")
        parts[frozen] = part
    return pd.concat(parts, names=["frozen"])
