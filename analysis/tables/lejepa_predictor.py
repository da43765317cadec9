"""LeJEPA, Table 4: predictor and averaged encoder against the projector's depth, by backbone."""

from analysis.table.pivot import PivotTable

TITLE = "LeJEPA: predictor and SWA; online linear probe top-1 (%)"
WITHIN = ("backbone",)
TABLE = PivotTable(
    rows={"predictor": "predictor", "swa": "SWA"}, columns={"encoder": "backbone", "layers": "projector"}
)
