"""Predicted against measured memory, and what options save and cost: their tables and figures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.kit import figures, naming, tables
from experiments.measure.memory.units import human

GB = 1e9
BAND = 0.10  # a prediction within it is called right
BASE = "none"  # the option that is none: what savings and slow-downs are against
READING = """\
Full fine-tuning, against the same step without the option: saving is of the measured peak, slow-down the median over
rounds of the ratio of seconds in the same round (mean ± half-width of its 95% Student-t interval)."""


def case(row: Mapping[Any, Any]) -> str:
    """A measured setup in one phrase."""
    parts = [naming.title(row["method"], row["settings"]), row["precision"], f"{row['batch']} × {row['length']}"]
    if row["quantization"]:
        parts.insert(1, str(row["quantization"]))
    if str(row["checkpointing"]) == "True":
        parts.append("checkpointing")
    if row["state_precision"]:
        parts.append(f"{row['state_precision']} moments")
    return ", ".join(parts)


def deviations(measured: pd.DataFrame) -> pd.DataFrame:
    """measured with `error`, (predicted - measured) / measured of the peak, and `grown`, of the resident size."""
    return measured.assign(
        error=measured["predicted_peak"] / measured["measured_peak"] - 1,
        grown=measured["resident_peak"] - measured["resident_before"],
    )


def verdict(measured: pd.DataFrame) -> str:
    """How many predictions are within BAND, the worst, and how much more the process grew by."""
    errors = deviations(measured)
    size = errors["error"].abs()
    worst, more = errors.iloc[int(size.argmax())], errors["grown"] / errors["predicted_peak"]
    return (
        f"Of {len(errors)} measured steps {(size <= BAND).sum()} were predicted within {100 * BAND:.0f}%; the median "
        f"deviation is {100 * size.median():.2g}%, the worst {100 * worst['error']:+.2g}% ({worst['model']}: "
        f"{case(worst.to_dict())}). The process grew by {more.min():.2f} to {more.max():.2f} times the predicted peak, "
        f"{more.iloc[int(errors['predicted_peak'].argmax())]:.2f} times in the largest step."
    )


def table(measured: pd.DataFrame) -> pd.DataFrame:
    """A row a measured setup, the worst predicted first."""
    errors = deviations(measured).sort_values("error", key=abs, ascending=False, kind="stable")
    return pd.DataFrame(
        {
            "model": errors["model"],
            "setup": [case(row) for row in errors.to_dict("records")],
            "predicted": errors["predicted_peak"].map(human),
            "measured": errors["measured_peak"].map(human),
            "deviation": (100 * errors["error"]).map("{:+.3g}%".format),
            "resident, grown by": errors["grown"].map(human),
        }
    )


def draw_measured(measured: pd.DataFrame, path: Path) -> Path:
    """Predicted against measured peaks on logarithmic axes, a colour a method and a mark a model, with the band.

    Crosses are what the process grew by. On the right the deviations from the measured peak, enlarged.
    """
    errors = deviations(measured)
    labels = sorted(errors["method"].unique(), key=naming.order)
    models = list(errors["model"].unique())
    colours = dict(
        zip(labels, sns.color_palette("colorblind" if len(labels) <= 10 else "husl", len(labels)), strict=True)
    )
    marks = {model: "osD^vP*X"[index % 8] for index, model in enumerate(models)}
    figure, axes = figures.panels(1, 2, figures.PAGE_WIDTH, 3.6)
    axis, right = axes[0]
    grown = errors["grown"] / GB
    axis.scatter(grown, errors["predicted_peak"] / GB, color="0.55", marker="x", s=10, linewidths=0.7)
    for (label, model), own in errors.groupby(["method", "model"], sort=False):
        shown = {"color": colours[label], "marker": marks[model], "linewidths": 0, "s": 18, "alpha": 0.8}
        axis.scatter(own["measured_peak"] / GB, own["predicted_peak"] / GB, **shown)
        right.scatter(own["measured_peak"] / GB, 100 * own["error"], **shown)
    sizes = errors[["measured_peak", "predicted_peak"]] / GB
    ends = np.array([min(sizes.min().min(), grown.min()) / 1.3, max(sizes.max().max(), grown.max()) * 1.3])
    axis.plot(ends, ends, color="0.3", linewidth=0.8)
    axis.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color="0.88", zorder=0)
    axis.set(
        xscale="log", yscale="log", xlim=ends, ylim=ends, xlabel="measured peak (GB)", ylabel="predicted peak (GB)"
    )
    right.axhline(0, color="0.3", linewidth=0.8)
    limit = 1.2 * max(float(100 * errors["error"].abs().max()), 0.1)
    if limit > 100 * BAND:
        right.axhspan(-100 * BAND, 100 * BAND, color="0.88", zorder=0)
    right.set(xscale="log", xlim=ends, ylim=(-limit, limit), xlabel="measured peak (GB)", ylabel="deviation (%)")
    for drawn in (axis.xaxis, axis.yaxis, right.xaxis):
        figures.plain_log(drawn)
    handles = [Line2D([], [], linestyle="", color=colours[label], marker="o", label=label) for label in labels]
    handles += [Line2D([], [], linestyle="", color="0.3", marker=marks[model], label=model) for model in models]
    handles += [Line2D([], [], linestyle="", color="0.55", marker="x", label="resident size, grown by")]
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False, markerscale=0.8)
    figure.supxlabel(f"grey band: within {100 * BAND:.0f}% of what torch's allocator held at the peak", fontsize=7)
    return figures.save(figure, path)


def savings(options: pd.DataFrame) -> pd.DataFrame:
    """A row a model and option: peak, saving (of the peak of BASE), slowdown (mean over n rounds of the ratio within a
    round, less 1), interval (half-width, 95% Student t), slowdown_median."""
    base = options[options["option"] == BASE].set_index(["model", "round"])["seconds"].rename("base")
    rounds = options.join(base, on=["model", "round"])
    rounds["value"] = rounds["seconds"] / rounds["base"] - 1
    keys = ["model", "option"]
    groups = rounds.groupby(keys, sort=False)
    shared = {name: (name, "first") for name in ("batch", "length", "precision")}
    cells = groups.agg(**shared, peak=("peak", "max"), slowdown_median=("value", "median")).reset_index()
    means = tables.summarise(rounds, keys).rename(columns={"mean": "slowdown"})
    cells = cells.merge(means, on=keys)
    peaks = cells[cells["option"] == BASE].set_index("model")["peak"]
    return cells.assign(saving=1 - cells["peak"] / cells["model"].map(peaks))


def texts(saved: pd.DataFrame) -> pd.DataFrame:
    """`savings` as text, without BASE."""
    own = saved[saved["option"] != BASE]
    parts = zip(own["slowdown_median"], own["slowdown"], own["interval"], strict=True)
    return pd.DataFrame(
        {
            "model": own["model"],
            "step": own["batch"].astype(str) + " × " + own["length"].astype(str) + ", " + own["precision"],
            "option": own["option"],
            "peak": own["peak"].map(human),
            "saving": (100 * own["saving"]).map("{:.1f}%".format),
            "slow-down": [
                f"{100 * median:+.1f}% ({100 * mean:+.1f}" + ("" if np.isnan(half) else f" ± {100 * half:.1f}") + ")"
                for median, mean, half in parts
            ],
            "rounds": own["n"].astype(str),
        }
    )


def draw_options(saved: pd.DataFrame, path: Path) -> Path:
    """Saving against slow-down, a panel a model, a point an option."""
    models = list(saved["model"].unique())
    names = [option for option in saved["option"].unique() if option != BASE]
    width = figures.PAGE_WIDTH if len(models) > 1 else 4.5
    figure, axes = figures.panels(1, len(models), width, 3.2, sharey=True)
    for axis, model in zip(axes[0], models, strict=True):
        _points(axis, saved[(saved["model"] == model) & (saved["option"] != BASE)], names)
        axis.set(title=model, xlabel="slow-down (%)")
    axes[0, 0].set_ylabel("saving of the peak (%)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    figure.supxlabel("slow-down: mean over rounds and its 95% Student-t interval, within a round", fontsize=7)
    return figures.save(figure, path)


def _points(axis: Axes, own: pd.DataFrame, names: list[str]) -> None:
    for name, colour in zip(names, sns.color_palette("colorblind", len(names)), strict=True):
        row = own[own["option"] == name]
        axis.errorbar(
            100 * row["slowdown"], 100 * row["saving"], xerr=100 * row["interval"], fmt="o", color=colour, label=name,
            markersize=4, elinewidth=1, capsize=2,
        )  # fmt: skip
    axis.axvline(0, color="0.4", linewidth=0.8)
    axis.axhline(0, color="0.4", linewidth=0.8)
    axis.grid(linewidth=0.4)
