"""The figure of the truncation study."""

from pathlib import Path

import pandas as pd

from analysis.kit import figures
from analysis.studies.spectrum.figures import colours, legend
from analysis.studies.spectrum.tables import place_name
from analysis.weights.update_runs import PLACE


def draw_truncation(table: pd.DataFrame, path: Path) -> Path:
    """Quality on test data with the update cut to rank k, and the share of its squared norm that is kept."""
    places = list(table.groupby([*PLACE, "metric"], sort=False))
    figure, axes = figures.panels(len(places), 2, figures.PAGE_WIDTH, 0.9 + 2.4 * len(places))
    methods = sorted(dict.fromkeys(table["method"]), key=lambda method: method == "full")
    of = colours(methods)
    for line, (key, cells) in zip(axes, places, strict=True):
        metric, steps = key[2], sorted(cells["k"][~cells["whole"]].unique())
        for axis, column, scale in ((line[0], "value", 1 if metric == "loss" else 100), (line[1], "energy", 100)):
            for method, mine in cells.groupby("method", sort=False):
                means = mine.groupby("k")[column].mean() * scale
                dashes = "--" if "types" in str(method) else "-"
                # The whole update of full fine-tuning has as many directions as W: it is drawn one step after the last.
                x = [steps.index(k) if k in steps else len(steps) for k in means.index]
                axis.plot(
                    x, means, dashes, marker="o", markersize=2.5, linewidth=1.1, color=of[str(method)], label=method
                )
            axis.set_xticks(range(len(steps) + 1), [*map(str, steps), "all"])
            axis.set_xlabel("k: directions of the update that are kept")
            axis.grid(axis="y", linewidth=0.4)
        line[0].set_ylabel(f"test {metric}" + ("" if metric == "loss" else " (%)"))
        line[0].set_title(place_name(key))
        line[1].set_ylabel("squared norm kept (%)")
        line[1].set_title(place_name(key))
    legend(figure, axes, methods)
    figure.supxlabel("means over seeds; all else as it was trained, so that k = 0 has the trained head", fontsize=7)
    return figures.save(figure, path)
