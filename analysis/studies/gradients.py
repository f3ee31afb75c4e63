"""LoRA's gradients by formula and by autograd, the first steps from every start, and what a pass costs."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes

from analysis.kit import figures, marks, pages
from analysis.kit.data import Data
from analysis.kit.study import Study
from experiments.measure.schemas import CHECKS, FLOPS, STEPS

FILES = (CHECKS, STEPS, FLOPS)
SETTING = ["model", "weight_types", "texts", "tokens"]
STARTS = {"gaussian": "B = 0", "gaussian_b": "A = 0", "both_gaussian": "neither is 0", "both_zero": "A = B = 0"}
NORMS = {
    "norm_A": "A", "norm_B": "B", "gradient_A": "dL/dA", "gradient_B": "dL/dB", "moved_A": "A moved",
    "moved_B": "B moved",
}  # fmt: skip
DEVIATIONS = """\
Largest deviation of an entry from autograd's, relative to autograd's largest entry, over all layers and ranks; `–`: q,
k and v are one module and share one dL/dx. Tokens are rows: X (T, k), H = X W0^T + s X A^T B^T, G = dL/dH (T, d), with
A (r, k), B (d, r), s = alpha / r: dL/dB = s G^T (X A^T), dL/dA = s (G B)^T X, dL/dX = G (W0 + s B A);
for one token s g (A x)^T, s B^T g x^T, (W0 + s B A)^T g. One rounding is 2.2e-16 in fp64 and 1.2e-7 in fp32."""
WALK = """\
Frobenius norms over all adapters, before the first AdamW step (0) and after the steps given, all on one batch; moved:
the distance from the start. 0 is exact: every entry of every matrix is 0."""
COSTS = """\
FLOPs (a multiply-add is two) of products with weights, counted while torch ran them. Attention's own products and the
loss are not among them: they are the same for every method, but for a product or two of the first layer where k is
frozen. Rule of thumb, for N weights and T tokens: forward 2 N T, backward 4 N T, but 2 N T for LoRA, as dL/dW0 is never
formed; each adapter adds 2 r (d + k) T forward and 4 r (d + k) T backward. It counts too much where x needs no gradient
(q, k and v of the first layer read frozen embeddings), and leaves out what is not applied to every token (the head).
Seconds are fp32, without the optimizer step; their ratio is that within a trial: median [lowest, highest]."""


def worst(data: Data) -> pd.DataFrame:
    """Largest error over ranks: a row for each model, module and weight type, a column a gradient and precision."""
    keys = ["model", "module", "weight_type"]
    long = data.read(CHECKS).assign(column=lambda rows: rows["gradient"] + " " + rows["precision"])
    wide = long.pivot_table(index=keys, columns="column", values="error", aggfunc="max", sort=False)
    return wide[[f"dL/d{side} {precision}" for side in "ABx" for precision in ("fp64", "fp32")]].reset_index()


def costs(data: Data) -> pd.DataFrame:
    """flops.csv with of_rule, counted over rule of thumb, and of_full, counted over full fine-tuning's count of that
    pass; the pass `both` is the sum of the two, without seconds."""
    flops = data.read(FLOPS)
    counts = ["counted", "exact", "rule", "attention"]
    both = flops.groupby(["method", "r", *SETTING], sort=False)[counts].sum().reset_index()
    found = pd.concat([flops, both.assign(**{"pass": "both"})], ignore_index=True)
    full = found[found["method"] == "full"].set_index([*SETTING, "pass"])["counted"].rename("full")
    found = found.join(full, on=[*SETTING, "pass"])
    return found.assign(of_rule=found["counted"] / found["rule"], of_full=found["counted"] / found["full"])


def table(data: Data) -> pd.DataFrame:
    """Every number of table.md, tidy: part, item, quantity, value."""
    errors, steps, cost = data.once(worst), data.read(STEPS), data.once(costs)
    names = ["model", "method", "r", "weight_types", "texts", "tokens", "pass"]
    quantities = ["counted", "exact", "rule", "attention", "of_rule", "of_full", "seconds"]
    quantities += ["ratio", "ratio_low", "ratio_high"]
    parts = {
        "checks": errors.iloc[:, 3:].assign(item=errors.iloc[:, :3].agg(", ".join, axis=1)),
        "steps": steps.drop(columns=["start", "step", "model"]).assign(
            item=steps["start"] + ", step " + steps["step"].astype(str)
        ),
        "flops": cost[quantities].assign(item=cost[names].astype(str).agg(", ".join, axis=1)),
    }
    long = [rows.assign(part=part).melt(["part", "item"], var_name="quantity").dropna() for part, rows in parts.items()]
    return pd.concat(long, ignore_index=True)


def verdicts(data: Data) -> list[str]:
    """What the numbers say, a line each."""
    checks, cost = data.read(CHECKS), data.once(costs)
    errors = checks.groupby("precision")["error"].max()
    lines = [
        f"- Formulas and autograd differ by at most {errors['fp64']:.1e} in fp64 and {errors['fp32']:.1e} in fp32: "
        f"{', '.join(checks['model'].unique())} and r = {', '.join(map(str, sorted(checks['r'].unique())))}."
    ]
    for start, rows in data.read(STEPS).groupby("start", sort=False):
        zero = {row["step"]: _zeros(row) for _, row in rows.sort_values("step").iterrows()}
        line = f"- {start} ({STARTS.get(str(start), start)}): at the start exactly zero: {zero[0]}"
        line += f"; after one step: {zero[1]}" if 1 in zero else ""
        last = max(zero)
        lines.append(f"{line}; after {last}: {zero[last]}.")
    equal = int((cost["counted"] == cost["exact"]).sum())
    lines.append(f"- FLOPs, summed module by module, equal the count exactly in {equal} of {len(cost)} passes.")
    for name, rows in cost[(cost["method"] == "lora") & (cost["pass"] != "both")].groupby("pass", sort=False):
        counted, took = rows["of_full"], rows["ratio"]
        lines.append(
            f"- A {name} pass of LoRA counts {counted.min():.2f} to {counted.max():.2f} times the FLOPs of full "
            f"fine-tuning's, and took {took.min():.2f} to {took.max():.2f} times as long (medians)."
        )
    return lines


def _zeros(row: pd.Series) -> str:
    names = {norm: f"the move of {norm[-1]}" if norm.startswith("moved") else name for norm, name in NORMS.items()}
    looked_at = [norm for norm in names if row["step"] or not norm.startswith("moved")]
    zero = [names[norm] for norm in looked_at if row[norm] == 0]
    return "everything" if len(zero) == len(looked_at) else ", ".join(zero) or "nothing"


def errors(data: Data) -> pd.DataFrame:
    """`worst` as text."""
    found = data.once(worst)
    numbers = found.columns[3:]
    texts = found[numbers].map(lambda value: None if pd.isna(value) else f"{value:.1e}" if value else "0")
    return found.assign(**texts)


def walk(data: Data) -> pd.DataFrame:
    """The first steps and the last, as text."""
    steps = data.read(STEPS)
    shown = steps[steps["step"].isin([0, 1, 2, steps["step"].max()])]
    return shown[["start", "step"]].astype(str).assign(**{NORMS[n]: shown[n].map("{:.3g}".format) for n in NORMS})


def shown_costs(data: Data) -> pd.DataFrame:
    """`costs` as text."""
    cost = data.once(costs).sort_values([*SETTING, "r"], kind="stable")
    ratios = zip(cost["ratio"], cost["ratio_low"], cost["ratio_high"], strict=True)
    columns = {
        "method": cost["method"],
        "r": cost["r"].astype(str).replace("0", "–"),
        "weight_types": cost["weight_types"].where(cost["method"] != "full", "–"),
        "texts × tokens": cost["texts"].astype(str) + " × " + cost["tokens"].astype(str),
        "pass": cost["pass"],
        "GFLOPs": (cost["counted"] / 1e9).map("{:.2f}".format),
        "of the rule": cost["of_rule"].map("{:.3f}".format),
        "of full's": cost["of_full"].map("{:.3f}".format),
        "seconds, of full's": [None if pd.isna(m) else f"{m:.2f} [{low:.2f}, {high:.2f}]" for m, low, high in ratios],
    }
    return pd.DataFrame(columns).drop_duplicates()


def machine(data: Data) -> str:
    """On what seconds were measured."""
    first = data.read(FLOPS).iloc[0]
    return f"{first['model']}, {first['device']}, {first['threads']:.0f} threads, {first['trials']:.0f} trials."


def draw(data: Data, path: Path) -> Path:
    """Errors by weight type, gradient norms over the first steps, and below them costs over rank."""
    settings = list(data.once(costs).groupby(SETTING, sort=False))
    columns = min(len(settings), 2)
    rows = -(-len(settings) // columns)
    heights = 2.7, 0.4 + 2.1 * rows
    figure = plt.figure(figsize=(figures.PAGE_WIDTH, sum(heights)), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    upper, lower = parts
    left, *right = upper.subplots(1, 3, width_ratios=[1.25, 1, 1])
    _errors(left, data.read(CHECKS))
    for axis, side in zip(right, "AB", strict=True):
        _norms(axis, data.read(STEPS), side)
    right[0].sharey(right[1])
    _legend(upper, right[1], ncols=4, title="start")
    axes = lower.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    # The medians set the scale: one disturbed trial's bar would squeeze all else into a line.
    axes[0, 0].set_ylim(0, 1.1 * float(data.once(costs)[["of_full", "ratio"]].max().max()))
    for axis, ((_, weight_types, texts, tokens), group) in figures.fill(axes.flat, settings):
        _costs(axis, group[group["method"] == "lora"].sort_values("r"))
        axis.set(title=f"LoRA on {weight_types}\n{texts} texts of {tokens} tokens", xlabel="rank r")
        axis.label_outer()
    for axis in axes[:, 0]:
        axis.set_ylabel("LoRA / full fine-tuning")
    _legend(lower, axes[0, 0], ncols=3)
    return figures.save(figure, path)


def _legend(part: Any, axis: Axes, **about: Any) -> None:
    part.legend(*axis.get_legend_handles_labels(), loc="outside lower center", fontsize=7, frameon=False, **about)


def _log_with_zero(axis: Axes, values: pd.Series) -> None:
    """A log axis that has an exact zero below the smallest number."""
    low = 10 ** np.floor(np.log10(values[values > 0].min()))
    axis.set_yscale("symlog", linthresh=low, linscale=1.5)
    axis.yaxis.get_major_locator().set_params(numticks=6)  # type: ignore[call-arg]
    axis.set_ylim(-low / 3, 3 * values.max())
    axis.grid(axis="y", linewidth=0.4)


def _errors(axis: Axes, checks: pd.DataFrame) -> None:
    types = sorted(dict.fromkeys(checks["weight_type"]), key=lambda name: name.count("+"))
    colours = dict(zip(("fp32", "fp64"), sns.color_palette(), strict=False))
    markers = dict(zip(("dL/dA", "dL/dB", "dL/dx"), "^vo", strict=True))
    for (precision, gradient), rows in checks.groupby(["precision", "gradient"]):
        precision, gradient = str(precision), str(gradient)
        largest = rows.groupby("weight_type")["error"].max()
        x = [types.index(name) + 0.2 * (list(markers).index(gradient) - 1) for name in largest.index]
        style = {"marker": markers[gradient], "color": colours[precision], "s": 18, "linewidths": 0}
        axis.scatter(x, largest, label=f"{gradient}, {precision}", **style)
    _log_with_zero(axis, checks["error"])
    for precision, colour in colours.items():
        eps = float(np.finfo(f"float{precision[2:]}").eps)
        axis.axhline(eps, color=colour, linewidth=0.8, linestyle=":")
        axis.text(-0.4, eps, f"eps of {precision}", fontsize=6.5, va="top", color=colour)
    axis.set_xticks(range(len(types)), types, rotation=30 if len(types) > 4 else 0)
    axis.set(title="formula against autograd", ylabel="largest relative error", xlim=(-0.5, len(types) - 0.5))
    axis.legend(ncols=2, loc="center", fontsize=6.5, frameon=False, columnspacing=0.8, handletextpad=0.1)


def _norms(axis: Axes, steps: pd.DataFrame, side: str) -> None:
    ticks = sorted(steps["step"].unique())
    for index, (start, rows) in enumerate(steps.groupby("start", sort=False)):
        own = rows.sort_values("step")
        style: dict[str, Any] = {"marker": marks.MARKERS[index % 4], "markersize": 4 - 0.5 * index}
        x = [ticks.index(step) for step in own["step"]]
        label = f"{start}: {STARTS.get(str(start), '')}"
        axis.plot(x, own[f"gradient_{side}"], label=label, **style)
    _log_with_zero(axis, pd.concat([steps["gradient_A"], steps["gradient_B"]]))
    axis.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
    axis.set(title=rf"$\Vert dL/d{side} \Vert$", xlabel="optimizer steps")


def _costs(axis: Axes, lora: pd.DataFrame) -> None:
    for index, name in enumerate(("forward", "backward", "both")):
        rows = lora[lora["pass"] == name]
        axis.plot(rows["r"], rows["of_full"], color=f"C{index}", linewidth=1.2, label=f"{name}, FLOPs")
        if rows["ratio"].notna().any():
            spread = [rows["ratio"] - rows["ratio_low"], rows["ratio_high"] - rows["ratio"]]
            label = f"{name}, seconds: median, range"
            axis.errorbar(rows["r"], rows["ratio"], yerr=spread, label=label, color=f"C{index}", **figures.DOTS)
    axis.axhline(1, color="0.5", linewidth=0.8, linestyle=":")
    figures.size_axis(axis, sorted(lora["r"].unique()))


STUDY = Study(
    runs=None,
    reads=tuple(schema.file for schema in FILES),
    tables={"table.csv": table},
    page=[
        "# Gradients of LoRA: formulas, first steps, costs",
        verdicts,
        pages.under("## Formulas against autograd", pages.table(errors), DEVIATIONS),
        pages.under("## First steps", pages.table(walk), WALK),
        pages.under("## Costs", pages.table(shown_costs), COSTS, machine),
    ],
    figures={"gradients.png": draw},
)
