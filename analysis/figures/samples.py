"""LeJEPA Fig. 12: accuracy over labelled images per class, frozen and fine-tuned, one line per model."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.figures.points import finished, label_of, lacking, over_seeds, seed_range, with_numbers
from analysis.figures.style import legend, panels, series
from analysis.select.selection import axes as axes_of
from analysis.tables.lejepa_samples import METRICS, SAMPLES

SWEEP = "lejepa_samples"
COUNTS = (*SAMPLES[1:], "all")  # of images per class
SIDES = {"frozen": METRICS["yes"], "fine-tuned": METRICS["no"]}


def lacks(runs: pd.DataFrame) -> str:
    return lacking(runs, any_of=[side[count] for side in SIDES.values() for count in COUNTS[:-1]])


def draw(runs: pd.DataFrame) -> Figure:
    """Shots without a metric, since a class has too few images, leave a gap; a side without any is left out."""
    runs = finished(runs)
    keys = axes_of(runs)
    sides = {side: [metrics[count] for count in COUNTS] for side, metrics in SIDES.items()}
    sides = {side: asked for side, asked in sides.items() if with_numbers(runs, asked[:-1])}
    drawn = [metric for asked in sides.values() for metric in asked]
    table = over_seeds(runs, drawn, keys)
    figure, places = panels(1, len(sides))
    for axes in places[1:]:
        axes.sharey(places[0])
    for axes, (side, asked) in zip(places, sides.items(), strict=True):
        for look, (_, row) in zip(series(len(table)), table.iterrows(), strict=True):
            means, spreads = 100 * row[asked].astype(float), 100 * row[[f"{m} std" for m in asked]].astype(float)
            shown = np.flatnonzero(np.isfinite(means))
            if len(shown):
                name = label_of(row, keys) or str(runs["model.encoder"].iloc[0])
                axes.errorbar(shown, means.iloc[shown], yerr=spreads.iloc[shown], label=name, **look)
        axes.set_xticks(range(len(COUNTS)), COUNTS)
        axes.set(xlabel="labelled images per class", title=side)
    places[0].set_ylabel("test top-1 (%)")
    legend(places[0])
    figure.suptitle(f"mean ± std, {seed_range(table, *drawn)}", fontsize=9)
    return figure
