"""LoRA's gradients by formula and by autograd, the first steps from every start, and what a pass costs."""

from pathlib import Path

import pandas as pd

from analysis.kit import measured, tables
from analysis.studies.gradients.figure import SETTING, STARTS, draw
from experiments.measure import schemas

FILES = (schemas.CHECKS, schemas.STEPS, schemas.FLOPS)
INPUTS = tuple(schema.file for schema in FILES)
CHECKS = """\
Largest deviation of an entry from autograd's, relative to autograd's largest entry, over all layers and ranks; `–`: q,
k and v are one module and share one dL/dx. Tokens are rows: X (T, k), H = X W0^T + s X A^T B^T, G = dL/dH (T, d), with
A (r, k), B (d, r), s = alpha / r: dL/dB = s G^T (X A^T), dL/dA = s (G B)^T X, dL/dX = G (W0 + s B A);
for one token s g (A x)^T, s B^T g x^T, (W0 + s B A)^T g. One rounding is 2.2e-16 in fp64 and 1.2e-7 in fp32."""
STEPS = """\
Frobenius norms over all adapters, before the first AdamW step (0) and after the steps given, all on one batch; moved:
the distance from the start. 0 is exact: every entry of every matrix is 0."""
COSTS = """\
FLOPs (a multiply-add is two) of products with weights, counted while torch ran them. Attention's own products and the
loss are not among them: they are the same for every method, but for a product or two of the first layer where k is
frozen. Rule of thumb, for N weights and T tokens: forward 2 N T, backward 4 N T, but 2 N T for LoRA, as dL/dW0 is never
formed; each adapter adds 2 r (d + k) T forward and 4 r (d + k) T backward. It counts too much where x needs no gradient
(q, k and v of the first layer read frozen embeddings), and leaves out what is not applied to every token (the head).
Seconds are fp32, without the optimizer step; their ratio is that within a trial: median [lowest, highest]."""


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes table.csv, table.md and gradients.png from INPUTS; returns their paths.

    No stored run is read. Raises InputError if a file of INPUTS is missing or damaged.
    """
    checks, steps, flops = (measured.whole(study_dir, schema) for schema in FILES)
    costs = compare_costs(flops)
    table_csv, table_md = study_dir / "table.csv", study_dir / "table.md"
    table(checks, steps, costs).to_csv(table_csv, index=False, float_format="%.6g")
    table_md.write_text(report(checks, steps, costs), encoding="utf-8")
    return [table_csv, table_md, draw(checks, steps, costs, study_dir / "gradients.png")]


def worst(checks: pd.DataFrame) -> pd.DataFrame:
    """Largest error over ranks: a row for each model, module and weight type, a column a gradient and precision."""
    keys = ["model", "module", "weight_type"]
    wide = checks.pivot_table(index=keys, columns=["gradient", "precision"], values="error", aggfunc="max", sort=False)
    wide = wide[[(g, p) for g in ("dL/dA", "dL/dB", "dL/dx") for p in ("fp64", "fp32")]]
    wide.columns = pd.Index([" ".join(column) for column in wide.columns])
    return wide.reset_index()


def compare_costs(flops: pd.DataFrame) -> pd.DataFrame:
    """flops with of_rule, counted over rule of thumb, and of_full, counted over full fine-tuning's count of that pass;
    the pass `both` is the sum of the two, without seconds."""
    keys = ["method", "r", *SETTING]
    both = flops.groupby(keys, sort=False)[["counted", "exact", "rule", "attention"]].sum().reset_index()
    costs = pd.concat([flops, both.assign(**{"pass": "both"})], ignore_index=True)
    full = costs[costs["method"] == "full"].set_index([*SETTING, "pass"])["counted"].rename("full")
    costs = costs.join(full, on=[*SETTING, "pass"])
    return costs.assign(of_rule=costs["counted"] / costs["rule"], of_full=costs["counted"] / costs["full"])


def table(checks: pd.DataFrame, steps: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Every number of table.md, tidy: part, item, quantity, value."""
    errors, names = worst(checks), ["model", "module", "weight_type"]
    parts = [
        errors.drop(columns=names).assign(part="checks", item=errors[names].agg(", ".join, axis=1)),
        steps.drop(columns=["start", "step", "model"]).assign(
            part="steps", item=steps["start"] + ", step " + steps["step"].astype(str)
        ),
    ]
    names = ["model", "method", "r", "weight_types", "texts", "tokens", "pass"]
    quantities = ["counted", "exact", "rule", "attention", "of_rule", "of_full", "seconds"]
    quantities += ["ratio", "ratio_low", "ratio_high"]
    parts.append(costs[quantities].assign(part="flops", item=costs[names].astype(str).agg(", ".join, axis=1)))
    long = [part.melt(["part", "item"], var_name="quantity").dropna() for part in parts]
    return pd.concat(long, ignore_index=True)


def verdicts(checks: pd.DataFrame, steps: pd.DataFrame, costs: pd.DataFrame) -> list[str]:
    """What the numbers say, a line each."""
    errors = checks.groupby("precision")["error"].max()
    lines = [
        f"- Formulas and autograd differ by at most {errors['fp64']:.1e} in fp64 and {errors['fp32']:.1e} in fp32: "
        f"{', '.join(checks['model'].unique())} and r = {', '.join(map(str, sorted(checks['r'].unique())))}."
    ]
    for start, rows in steps.groupby("start", sort=False):
        zero = _zeros(rows[rows["step"] == 0].iloc[0])
        line = f"- {start} ({STARTS.get(str(start), start)}): at the start exactly zero: {zero}"
        if (rows["step"] == 1).any():
            line += f"; after one step: {_zeros(rows[rows['step'] == 1].iloc[0])}"
        last = rows.sort_values("step").iloc[-1]
        lines.append(f"{line}; after {last['step']}: {_zeros(last)}.")
    equal = int((costs["counted"] == costs["exact"]).sum())
    lines.append(f"- FLOPs, summed module by module, equal the count exactly in {equal} of {len(costs)} passes.")
    lora = costs[(costs["method"] == "lora") & costs["pass"].isin(["forward", "backward"])]
    for name, rows in lora.groupby("pass", sort=False):
        counted, took = rows["of_full"], rows["ratio"]
        lines.append(
            f"- A {name} pass of LoRA counts {counted.min():.2f} to {counted.max():.2f} times the FLOPs of full "
            f"fine-tuning's, and took {took.min():.2f} to {took.max():.2f} times as long (medians)."
        )
    return lines


def _zeros(row: pd.Series) -> str:
    names = {"norm_A": "A", "norm_B": "B", "gradient_A": "dL/dA", "gradient_B": "dL/dB"}
    if row["step"]:
        names |= {"moved_A": "the move of A", "moved_B": "the move of B"}
    zero = [name for column, name in names.items() if row[column] == 0]
    return "everything" if len(zero) == len(names) else ", ".join(zero) or "nothing"


def report(checks: pd.DataFrame, steps: pd.DataFrame, costs: pd.DataFrame) -> str:
    """table.md: what the numbers say, then the three tables, each with how to read it."""
    errors = worst(checks)
    numbers = errors.columns[3:]
    errors[numbers] = errors[numbers].map(lambda value: None if pd.isna(value) else f"{value:.1e}" if value else "0")
    shown = steps[steps["step"].isin([0, 1, 2, steps["step"].max()])]
    walk = shown[["start", "step"]].astype(str)
    sides = [("A", "norm_A"), ("B", "norm_B"), ("dL/dA", "gradient_A"), ("dL/dB", "gradient_B")]
    for name, column in [*sides, ("A moved", "moved_A"), ("B moved", "moved_B")]:
        walk[name] = shown[column].map("{:.3g}".format)
    cost = costs[["method", "r", "weight_types", "pass"]].astype(str)
    cost["r"] = cost["r"].replace("0", "–")
    cost.loc[costs["method"] == "full", "weight_types"] = "–"
    cost.insert(3, "texts × tokens", costs["texts"].astype(str) + " × " + costs["tokens"].astype(str))
    cost["GFLOPs"] = (costs["counted"] / 1e9).map("{:.2f}".format)
    cost["of the rule"] = costs["of_rule"].map("{:.3f}".format)
    cost["of full's"] = costs["of_full"].map("{:.3f}".format)
    cost["seconds, of full's"] = [
        None if pd.isna(ratio) else f"{ratio:.2f} [{low:.2f}, {high:.2f}]"
        for ratio, low, high in zip(costs["ratio"], costs["ratio_low"], costs["ratio_high"], strict=True)
    ]
    first = costs.iloc[0]
    measured = f"{first['model']}, {first['device']}, {first['threads']:.0f} threads, {first['trials']:.0f} trials."
    lines = ["# Gradients of LoRA: formulas, first steps, costs", "", *verdicts(checks, steps, costs)]
    lines += ["", "## Formulas against autograd", "", tables.markdown(errors), "", CHECKS]
    lines += ["", "## First steps", "", tables.markdown(walk), "", STEPS]
    order = costs.sort_values([*SETTING, "r"], kind="stable").index
    lines += ["", "## Costs", "", tables.markdown(cost.loc[order].drop_duplicates()), "", COSTS, "", measured]
    return "\n".join(lines) + "\n"
