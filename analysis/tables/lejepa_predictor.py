"""LeJEPA, Table 4: predictor and averaged encoder against the projector's depth, by backbone."""

import pandas as pd

from analysis.select.compared import cells
from analysis.select.labels import with_models
from analysis.table.cells import percent
from analysis.table.pivot import pivot

TITLE = "LeJEPA: predictor and SWA; frozen linear probe top-1 (%)"
WITHIN = ("backbone",)


def build(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows predictor and SWA, columns backbone and, below it, the projector's layers; each backbone has its best."""
    found = with_models(cells(runs))
    found = found.assign(
        predictor=found["model.predictor"].astype(str).map({"True": "yes", "False": "no"}),
        swa=["yes" if decay > 0 else "no" for decay in found["model.swa_decay"].astype(float)],
        layers=[f"{layers}L" for layers in found["model.projector_layers"]],
    )
    return pivot(
        found,
        rows={"predictor": "predictor", "swa": "SWA"},
        columns={"encoder": "backbone", "layers": "projector"},
        quantities=[percent("top-1 (%)", "test/linear_top1")],
    )
