"""How large are the directions of delta_w in W, and how much does it amplify them: the paper's Table 7, Section H.4."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.kit import measured, table_md, tables
from analysis.maths import amplification
from analysis.studies.amplification.figures import draw_factors, draw_projections
from analysis.studies.amplification.tables import GROUP, by_rank, compare_ranks, layout, over_layers, verdict
from analysis.weights import update_runs
from analysis.weights.update_runs import Trained, trained_svd
from lora.config import InputError

BASE = True  # reads the pretrained weights
MEASURED = ("amplification.csv",)
COLUMNS = [
    "model", "task", "run_id", "seed", "r", "layer", "weight_type", "norm_w", "norm_delta_w", "projection_delta_w",
    "projection_w", "projection_random", "projection_random_low", "projection_random_high", "amplification",
]  # fmt: skip
READING = """\
||U^T W V||_F is how much of W lies in the directions U, V (left and right): those of delta_w's singular vectors, W's
own top r, which are the most there can be, or random ones (the mean of 100 draws, and the interval that holds 95% of
them; the root of their mean square is exactly r ||W||_F / sqrt(d k)). The amplification factor is ||delta_w||_F divided
by the first: how much larger delta_w is in its directions than W is there. Table 7 is of the middle layer (layers count
from 0), as in the paper: means over seeds. Means of factors are geometric; `a to b`: from the smallest layer to the
largest. [ ]: 95% Student-t interval over seeds; (n): seeds. Tests are paired over seeds, on logarithms, and corrected
for their number by Holm's method.

A larger r spans more of W whatever its directions are: r random ones hold r times as much as one, so that a smaller
factor at a larger rank is no finding by itself. What random directions would give is therefore beside it. And alpha is
the same at every rank, so that delta_w is scaled by alpha / r: its norm, and with it the factor, depends on this too.
{precision}"""


def build(study_dir: Path, runs_dir: Path, base: str | None = None) -> list[Path]:
    """Measures what amplification.csv (a row a run and site) lacks. Writes runs.csv, table.csv, table.md,
    amplification.png and projections.png from it. Returns their paths.

    base: as of `weights.update_runs.trained`. Raises InputError as that and `load` there, if an update is zero or has
    no rank, and if runs of one rank and seed differ in other settings.
    """
    runs = update_runs.load(study_dir, runs_dir)
    each = update_runs.of_each(runs)
    tables.check_seeds(each, ["model", "task", "r"], study_dir)
    stored = measured.Rows(study_dir / MEASURED[0], ["run_id"], measured.ids(each["run_id"]))
    if stored.missing:
        groups = update_runs.trained(runs, [run_id for (run_id,) in stored.missing], study_dir, runs_dir, base)
        stored.add(pd.concat([measure(group) for group in groups], ignore_index=True))
    rows = stored.frame.sort_values(["model", "task", "r", "seed"], kind="stable", ignore_index=True)
    outputs = {name: study_dir / name for name in ("runs.csv", *MEASURED, "table.csv", "table.md")}
    runs[tables.RUNS_COLUMNS].to_csv(outputs["runs.csv"], index=False)
    table = by_rank(rows)
    table.to_csv(outputs["table.csv"], index=False, float_format="%.6g")
    failed = tables.failure_lines(tables.read_sweep(study_dir).failed)
    text = report(rows, table, update_runs.quality(runs), update_runs.precision_note(runs), failed)
    table_md.write(outputs["table.md"], text, runs)
    figures = [
        draw_factors(rows, study_dir / "amplification.png"), draw_projections(rows, study_dir / "projections.png"),
    ]  # fmt: skip
    return [*outputs.values(), *figures]


def measure(group: Trained) -> pd.DataFrame:
    """COLUMNS for every run and site: the norms of W and delta_w, and ||U^T W V||_F for the directions of either, and
    of random ones."""
    rows: list[dict[str, Any]] = []
    for site in group.sites:
        W = group.matrix(site)
        norm_w, chance = float(np.linalg.norm(W)), dict[int, amplification.Chance]()
        ranks = [update.rank for _, update in group.at(site) if update.rank]
        S = amplification.top_singular(W, max(ranks, default=1)).S
        for about, update in group.at(site):
            r = update.rank
            if r is None:
                raise InputError(
                    f"run {about['run_id']} is {about['label']}, whose update has no rank r: this study is of LoRA"
                )
            if r not in chance:
                chance[r] = amplification.random_projection(W, r)
            svd = trained_svd(about, update)
            norm, projection = float(np.linalg.norm(svd.S)), amplification.projection_norm(svd.U, W, svd.Vh.T)
            rows.append(
                {name: about[name] for name in ("model", "task", "run_id", "seed")}
                | {"r": r, "layer": site.layer, "weight_type": site.weight_type}
                | {"norm_w": norm_w, "norm_delta_w": norm, "projection_delta_w": projection}
                | {"projection_w": float(np.linalg.norm(S[:r]))}
                | dict(zip(COLUMNS[11:14], chance[r], strict=True))
                | {"amplification": amplification.amplification(norm, projection)}
            )
    return pd.DataFrame(rows, columns=COLUMNS)


def paper_table() -> pd.DataFrame:
    """The paper's Table 7: W_q of layer 48 of GPT-3."""
    return pd.read_csv(str(files("analysis").joinpath("paper/table07_amplification.csv")))


def report(rows: pd.DataFrame, table: pd.DataFrame, quality: pd.DataFrame, precision: str, failed: list[str]) -> str:
    """table.md: verdicts, Table 7 beside the paper's, the numbers over all layers, and the runs."""
    tests = compare_ranks(rows)
    lines = ["# Amplification (the paper's Table 7 and Section H.4)", "", READING.format(precision=precision)]
    lines += ["", "## What the runs say", "", *verdict(rows, tests)]
    lines += ["", "## Table 7", "", tables.markdown(layout(rows, paper_table()))]
    for (model, task), cells in table.groupby(GROUP[:2], sort=False):
        lines += ["", f"## {task} ({model}): all layers", "", tables.markdown(over_layers(cells))]
    lines += ["", "## Runs", "", tables.markdown(quality)]
    if failed:
        lines += ["", "## Failed runs", "", *failed]
    return "\n".join(lines) + "\n"
