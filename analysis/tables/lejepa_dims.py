"""LeJEPA, Table 1 d: width of the projector's output against slices and width of the embedding."""

from analysis.table.pivot import PivotTable

TITLE = "LeJEPA: widths and slices; online linear probe top-1 (%)"
TABLE = PivotTable(
    rows={"model.projector_dim": "projector_dim"},
    columns={"method.num_slices": "num_slices", "model.embed_dim": "embed_dim"},
)
