"""LeJEPA Fig. 12: accuracy over labelled images per class, frozen and fine-tuned, one line per model."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.points import finished, label_of, lacking, over_seeds, seed_range
from analysis.figures.style import panels, series
from analysis.select.selection import axes as axes_of
from analysis.tables.lejepa_samples import METRICS, SAMPLES

SWEEP = "lejepa_samples"
COUNTS = (*SAMPLES[1:], "all")  # of images per class
SIDES = {"frozen": METRICS["yes"], "fine-tuned": METRICS["no"]}


def lacks(runs: pd.DataFrame) -> str:
    return lacking(runs, measured=("test/shot1_top1",))


def draw(runs: pd.DataFrame) -> Figure:
    """Shots without a metric, since a class has too few images, leave a gap."""
    runs = finished(runs)
    keys = axes_of(runs)
    figure, places = panels(1, 2)
    top = over_seeds(runs, ["test/shot1_top1"], keys)
    for axes, (side, metrics) in zip(places, SIDES.items(), strict=True):
        asked = [metrics[count] for count in COUNTS]
        table = over_seeds(runs, ["test/shot1_top1", *asked], keys)
        for look, (_, row) in zip(series(len(table)), table.iterrows(), strict=True):
            means, spreads = 100 * row[asked].astype(float), 100 * row[[f"{m} std" for m in asked]].astype(float)
            shown = np.flatnonzero(np.isfinite(means))
            if len(shown):
                name = label_of(row, keys) or str(runs["model.encoder"].iloc[0])
                axes.errorbar(shown, means.iloc[shown], yerr=spreads.iloc[shown], label=name, **look)
        axes.set_xticks(range(len(COUNTS)), COUNTS)
        axes.set(xlabel="labelled images per class", title=side)
    places[0].sharey(places[1])
    places[0].set_ylabel("test top-1 (%)")
    places[0].legend()
    figure.suptitle(f"mean ± std, {seed_range(top, 'test/shot1_top1')}", fontsize=9)
    return figure
