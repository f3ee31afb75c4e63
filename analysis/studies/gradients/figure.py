"""The figure of the gradients study: errors of the formulas, gradients over the first steps, costs over rank."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit.figures import PAGE_WIDTH, save

SETTING = ["model", "weight_types", "texts", "tokens"]
STARTS = {"gaussian": "B = 0", "gaussian_b": "A = 0", "both_gaussian": "neither is 0", "both_zero": "A = B = 0"}


def draw(checks: pd.DataFrame, steps: pd.DataFrame, costs: pd.DataFrame, path: Path) -> Path:
    """gradients.png: errors by weight type, gradient norms over the first steps, and cost over rank."""
    settings = list(costs.groupby(SETTING, sort=False))
    columns = min(len(settings), 2)
    rows = -(-len(settings) // columns)
    figure = plt.figure(figsize=(PAGE_WIDTH, 2.7 + 0.4 + 2.1 * rows), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[2.7, 0.4 + 2.1 * rows])
    upper, lower = parts
    left, *right = upper.subplots(1, 3, width_ratios=[1.25, 1, 1])
    _errors(left, checks)
    for axis, side in zip(right, "AB", strict=True):
        _norms(axis, steps, side)
    right[0].sharey(right[1])
    upper.legend(
        *right[1].get_legend_handles_labels(), loc="outside lower right", ncols=4, title="start", frameon=False
    )
    axes = lower.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    # The medians set the scale: one disturbed trial's bar would squeeze all else into a line.
    axes[0, 0].set_ylim(0, 1.1 * max(float(costs["of_full"].max()), float(costs["ratio"].max())))
    for axis, (setting, group) in zip(axes.flat, settings, strict=False):
        _costs(axis, group)
        _, weight_types, texts, tokens = setting
        axis.set(title=f"LoRA on {weight_types}\n{texts} texts of {tokens} tokens", xlabel="rank r")
        axis.label_outer()
    for axis in axes.flat[len(settings) :]:
        axis.axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel("LoRA / full fine-tuning")
    lower.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7, frameon=False
    )
    return save(figure, path)


def _log_with_zero(axis: Axes, values: pd.Series) -> float:
    """A log axis that shows an exact zero, two decades below the rest; returns where."""
    exponents = np.log10(values[values > 0])
    low, high = (int(np.floor(exponents.min())), int(np.ceil(exponents.max()))) if len(exponents) else (0, 1)
    floor = low - 1.5
    step = max(1, (high - low) // 5)
    decades = range(low, high + 1, step)
    axis.set_yscale("log")
    axis.set_ylim(10 ** (floor - 0.5), 10 ** (high + 0.3))
    axis.set_yticks([10.0**floor, *(10.0**e for e in decades)], ["0", *(rf"$10^{{{e}}}$" for e in decades)])
    axis.minorticks_off()
    axis.grid(axis="y", linewidth=0.4)
    return float(10.0**floor)


def _errors(axis: Axes, checks: pd.DataFrame) -> None:
    types = sorted(
        checks["weight_type"].unique(), key=lambda name: (name.count("+"), list(checks["weight_type"]).index(name))
    )
    floor = _log_with_zero(axis, checks["error"])
    for precision, colour in zip(("fp32", "fp64"), sns.color_palette(n_colors=2), strict=True):
        for offset, (gradient, marker) in enumerate({"dL/dA": "^", "dL/dB": "v", "dL/dx": "o"}.items()):
            rows = checks[(checks["precision"] == precision) & (checks["gradient"] == gradient)]
            largest = rows.groupby("weight_type")["error"].max()
            x = [types.index(name) + 0.2 * (offset - 1) for name in largest.index]
            axis.scatter(
                x, largest.clip(lower=floor), label=f"{gradient}, {precision}", marker=marker, s=18, color=colour,
                linewidths=0,
            )  # fmt: skip
        eps = float(np.finfo("float32" if precision == "fp32" else "float64").eps)
        axis.axhline(eps, color=colour, linewidth=0.8, linestyle=":")
        axis.text(-0.4, eps, f"eps of {precision}", fontsize=6.5, va="top", color=colour)
    axis.set_xticks(range(len(types)), types, rotation=30 if len(types) > 4 else 0)
    axis.set(title="formula against autograd", ylabel="largest relative error", xlim=(-0.5, len(types) - 0.5))
    axis.legend(ncols=2, loc="center", fontsize=6.5, frameon=False, columnspacing=0.8, handletextpad=0.1)


def _norms(axis: Axes, steps: pd.DataFrame, side: str) -> None:
    floor = _log_with_zero(axis, pd.concat([steps["gradient_A"], steps["gradient_B"]]))
    for index, (start, rows) in enumerate(steps.groupby("start", sort=False)):
        x, y = np.arange(len(rows)), rows.sort_values("step")[f"gradient_{side}"].clip(lower=floor)
        label = f"{start}: {STARTS.get(str(start), '')}"
        axis.plot(x, y, color=f"C{index}", marker="osD^"[index % 4], markersize=4 - 0.5 * index, label=label)
    ticks = sorted(steps["step"].unique())
    axis.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
    axis.set(title=rf"$\Vert dL/d{side} \Vert$", xlabel="optimizer steps")


def _costs(axis: Axes, costs: pd.DataFrame) -> None:
    lora = costs[costs["method"] == "lora"].sort_values("r")
    for index, name in enumerate(("forward", "backward", "both")):
        rows = lora[lora["pass"] == name]
        axis.plot(rows["r"], rows["of_full"], color=f"C{index}", linewidth=1.2, label=f"{name}, FLOPs")
        if rows["ratio"].notna().any():
            spread = [rows["ratio"] - rows["ratio_low"], rows["ratio_high"] - rows["ratio"]]
            axis.errorbar(
                rows["r"], rows["ratio"], yerr=spread, label=f"{name}, seconds: median, range", color=f"C{index}",
                fmt="o", markersize=3.5, elinewidth=0.8, capsize=2,
            )  # fmt: skip
    axis.axhline(1, color="0.5", linewidth=0.8, linestyle=":")
    ticks = sorted(lora["r"].unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()
    axis.grid(axis="y", linewidth=0.4)
