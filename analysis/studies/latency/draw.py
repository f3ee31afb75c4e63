"""The paper's Figure 5, and LoRA's latency against that of the base model."""

from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Normalize

from analysis.kit import figures
from analysis.kit.heat_maps import heat_map

ADAPTERS = ("adapter_h", "adapter_l")
LORA = {
    "control": "base model, a second time",
    "lora_merged": "LoRA, merged",
    "lora_unmerged": "LoRA, not merged",
}
FLOOR = 0.01  # scales span at least 1%, so that noise alone does not look like a slow-down


def grids(cells: pd.DataFrame, left_out: set[tuple[str, int, int]], folder: Path) -> list[Path]:
    """fig5_<model>.png for each model."""
    paths = []
    for model, own in cells.groupby("model", sort=False):
        lacking = {(batch, length) for whose, batch, length in left_out if whose == model}
        paths.append(_grid(own, str(model), lacking, folder / f"fig5_{figures.file_name(str(model))}.png"))
    return paths


def _grid(cells: pd.DataFrame, model: str, left_out: set[tuple[int, int]], path: Path) -> Path:
    """Figure 5: median slow-down in percent, a row of panels an adapter, a panel a length, batch over bottleneck.

    cells: rows of one model of `studies.latency.study.compare`. Bottleneck 0 is the control, the base model measured
    a second time. left_out: (batch, length) that were not measured, blank as is any other that is missing.
    """
    lengths = sorted({*cells["length"], *(length for _, length in left_out)})
    batches = sorted({*cells["batch"], *(batch for batch, _ in left_out)})
    adapters = cells[cells["contender"].isin(ADAPTERS)]
    bottlenecks = [0, *sorted(adapters["bottleneck"].unique())]
    top = max(100 * adapters["slowdown_median"].max(), 100 * FLOOR)
    figure, axes = figures.panels(len(ADAPTERS), len(lengths), figures.PAGE_WIDTH, 1.0 + len(batches) * 0.52)
    for row, adapter in zip(axes, ADAPTERS, strict=True):
        for axis, length in zip(row, lengths, strict=True):
            shown = cells[(cells["length"] == length) & cells["contender"].isin([adapter, "control"])]
            grid = shown.pivot(index="batch", columns="bottleneck", values="slowdown_median")
            percent = (100 * grid.reindex(index=batches, columns=bottlenecks).to_numpy(dtype=float)).round(1) + 0.0
            image = heat_map(axis, percent, Normalize(0, top), "{:.1f}")
            axis.set_title(f"{adapter}, length {length}")
            axis.set_xticks(range(len(bottlenecks)), bottlenecks)
            axis.set_yticks(range(len(batches)), batches)
    for axis in axes[-1]:
        axis.set_xlabel("bottleneck m")
    for axis in axes[:, 0]:
        axis.set_ylabel("batch")
    bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.01, aspect=30)
    bar.set_label("slow-down (%)")
    figure.suptitle(f"Slow-down by adapters in one forward pass ({model})")
    note = "median over rounds, against the base model in the same round; m = 0: the base model a second time (noise)"
    if len(cells[["batch", "length"]].drop_duplicates()) < len(batches) * len(lengths):
        note += "; grey: not measured"
    figure.supxlabel(note, fontsize=7)
    return figures.save(figure, path)


def lora(cells: pd.DataFrame, path: Path) -> Path:
    """Slow-down of LoRA, merged and not, and of the control, with 95% intervals: a panel a model, a line a cell.

    cells: of `studies.latency.study.compare`.
    """
    # Most bars set the scale: one cell with a disturbed round would squeeze all others into a line.
    shown = cells[cells["contender"].isin(LORA)]
    bars = shown["slowdown"].abs() + shown["slowdown_interval"].fillna(0)
    limit = max(110 * float(bars.quantile(0.9)), 115 * float(shown["slowdown"].abs().max()), 100 * FLOOR)
    models = list(cells["model"].unique())
    rows = cells.groupby("model")[["batch", "length"]].apply(lambda frame: len(frame.drop_duplicates())).max()
    figure, axes = figures.panels(1, len(models), figures.PAGE_WIDTH if len(models) > 1 else 4.5, 1.2 + 0.28 * rows)
    for axis, model in zip(axes.flat, models, strict=True):
        _intervals(axis, cells[cells["model"] == model], limit)
        axis.set(title=model, xlabel="slow-down (%)")
    axes[0, 0].set_ylabel("batch × length")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(LORA), frameon=False)
    note = "mean over rounds and its 95% Student-t interval, against the base model in the same round"
    figure.supxlabel(f"{note}; an arrow: the bar goes on", fontsize=7)
    return figures.save(figure, path)


def _intervals(axis: Axes, cells: pd.DataFrame, limit: float) -> None:
    sizes = cells[["batch", "length"]].drop_duplicates()
    place = {size: index for index, size in enumerate(sizes.itertuples(index=False, name=None))}
    for index, (name, colour) in enumerate(zip(LORA, sns.color_palette(n_colors=len(LORA)), strict=True)):
        own = cells[cells["contender"] == name]
        y = np.array([place[size] for size in zip(own["batch"], own["length"], strict=True)]) + 0.22 * (index - 1)
        x, half = 100 * own["slowdown"].to_numpy(), 100 * own["slowdown_interval"].to_numpy()
        axis.errorbar(
            x, y, xerr=half, fmt="o", color=colour, label=LORA[name], markersize=3.5, elinewidth=1, capsize=1.5
        )
        for side, beyond in ((-1, x - half < -limit), (1, x + half > limit)):
            axis.plot(
                np.full(beyond.sum(), 0.985 * side * limit), y[beyond], "<>"[side > 0], color=colour, markersize=3
            )
    axis.axvline(0, color="0.4", linewidth=0.8)
    axis.set_yticks(range(len(place)), [f"{batch} × {length}" for batch, length in place])
    axis.set(xlim=(-limit, limit), ylim=(len(place) - 0.4, -0.6))
    axis.grid(axis="x", linewidth=0.4)
