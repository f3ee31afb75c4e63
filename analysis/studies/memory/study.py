"""Memory of one training step: plans against measurements, methods, estimates of others, what fits, and what saves."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kit import tables
from analysis.kit.measured import whole
from analysis.studies.memory import figures as memory_figures
from analysis.studies.memory import options as memory_options
from analysis.studies.memory import tables as memory_tables
from experiments.measure.memory import schemas
from experiments.measure.memory.setup import PRECISIONS
from lora.config import InputError

FILES = (
    schemas.MEASURED, schemas.OPTIONS, schemas.PLANS, schemas.PUBLISHED, schemas.PAPER_FIGURES, schemas.FITS,
)  # fmt: skip
INPUTS = (*(schema.file for schema in FILES), "machine.json")
MACHINE = (
    "processor", "device", "precision", "threads", "OMP_WAIT_POLICY", "torch", "transformers", "started", "finished",
)  # fmt: skip
READING = """\
Bytes are decimal, 1 GB = 10^9; the memory of cards is in GiB. A plan is a training step on tensors without data: its
parameters, gradients, optimizer states, what the backward pass keeps and what is alive for a moment are counted as
they come and go. The peak is the most that is alive at one time, which can be less than the sum of the kinds."""
MEASURED = """\
Measured is what torch's allocator held at the peak of a step. The resident size of the process grew by more from its
start to its peak: by what libraries load and keep for themselves, and by blocks that are free but not given back."""
ESTIMATES = """\
`theirs / ours (ratio)`, GB. LLaMA-Factory's estimates say no batch, length or precision; ours are planned peaks at
batch {batch}, length {length}, logits for every token, activations computed again in the backward pass. Its README has
a rule for each row, bytes for each parameter of the name: 18 (AMP), 8 (16 bits), 2 (freeze, LoRA, GaLore, BAdam), 1,
1/2 and 1/4 (QLoRA); what its numbers are beyond the rule is left for everything else. What these bytes are for, in
brackets below, is our reading. LoRA and QLoRA: r = 8 on all linear weights, which fused experts are not."""
FITS = """\
Largest batch at {lengths} tokens a row, then the longest row at batch 1; –: not one row fits. {reserve:g} GiB of each
card are kept free for the CUDA context, libraries and gaps (assumed, not measured). Rows may be longer than the
{positions} tokens that the model was pretrained for, where its positions are rotary."""


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """Writes table.csv, table.md and the figures from INPUTS; returns their paths.

    No stored run is read, and nothing is planned. Raises InputError if a file of INPUTS is damaged.
    """
    measured, options, plans, published, paper, fits = (whole(study_dir, schema) for schema in FILES)
    machine = _machine(study_dir)
    savings = memory_options.savings(options)
    paths = [study_dir / "table.csv", study_dir / "table.md"]
    summary(measured, savings, published, paper).to_csv(paths[0], index=False, float_format="%.6g")
    paths[1].write_text(report(measured, machine, savings, plans, published, paper, fits), encoding="utf-8")
    paths.append(memory_options.draw_measured(measured, study_dir / "measured.png"))
    for model, own in plans.groupby("model", sort=False):
        panels = {
            f"{model}, {'activations computed again' if again else 'activations kept'}": rows
            for again, rows in own.groupby("checkpointing")
        }
        paths.append(memory_figures.draw_bytes(panels, study_dir / f"bytes_{_file(model)}.png"))
    paths.append(memory_figures.draw_published(published, study_dir / "published.png"))
    for model, own in fits.groupby("model", sort=False):
        paths.append(memory_figures.draw_fits(own, str(model), study_dir / f"fits_{_file(model)}.png"))
    return [*paths, memory_options.draw_options(savings, study_dir / "options.png")]


def _file(model: object) -> str:
    return str(model).strip("./").replace("/", "_")


def _machine(study_dir: Path) -> Mapping[str, Any]:
    path = study_dir / "machine.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} is damaged; delete {study_dir}, `{tables.make_command(study_dir)}` measures again"
        ) from error


def summary(
    measured: pd.DataFrame, savings: pd.DataFrame, published: pd.DataFrame, paper: pd.DataFrame
) -> pd.DataFrame:
    """table.csv: part, model, case, unit, theirs (or measured, or without the option), ours, ratio (ours / theirs)."""
    columns = ["part", "model", "case", "unit", "theirs", "ours", "ratio"]
    steps = measured.assign(
        part="measured",
        case=[memory_options.case(row) for row in measured.to_dict("records")],
        unit="B",
        theirs=measured["measured_peak"],
        ours=measured["predicted_peak"],
        ratio=measured["predicted_peak"] / measured["measured_peak"],
    )
    estimates = published.assign(
        part="LLaMA-Factory", case=published["ours"], unit="B", ours=published["peak"],
    )  # fmt: skip
    figures = paper.assign(part=paper["source"], model="", case=paper["quantity"])
    return pd.concat([frame[columns] for frame in (steps, estimates, figures)], ignore_index=True)


def report(
    measured: pd.DataFrame,
    machine: Mapping[str, Any],
    savings: pd.DataFrame,
    plans: pd.DataFrame,
    published: pd.DataFrame,
    paper: pd.DataFrame,
    fits: pd.DataFrame,
) -> str:
    """table.md."""
    used = dict.fromkeys([*measured["precision"], *plans["precision"]])
    lines = ["# Memory of one training step", "", READING, "", "Precision:", ""]
    lines += [*(f"- {name}: {PRECISIONS[name]}" for name in used), "", "## Predicted and measured", ""]
    lines += [memory_options.verdict(measured), "", MEASURED, "", tables.markdown(memory_options.table(measured))]
    lines += ["", "Measured on", "", *(f"- {name}: {machine.get(name)}" for name in MACHINE)]
    lines += ["", "## What saves, and what it costs", "", *memory_options.report(savings)]
    for model, own in plans.groupby("model", sort=False):
        first = own.iloc[0]
        for again in sorted(own["checkpointing"].unique()):
            how = "computed again in the backward pass" if again else "kept"
            lines += ["", f"## {model}: batch {first['batch']}, length {first['length']}, activations {how}", ""]
            lines += [tables.markdown(memory_tables.methods(own, str(model), bool(again)))]
    first = published.iloc[0]
    lines += [
        "",
        "## LLaMA-Factory's estimates",
        "",
        ESTIMATES.format(batch=first["batch"], length=first["length"]),
        "",
    ]
    lines += [tables.markdown(memory_tables.published(published)), ""]
    lines += [tables.markdown(memory_tables.differences(published))]
    lines += ["", "## The LoRA paper's figures", "", tables.markdown(memory_tables.paper_figures(paper))]
    lengths = " / ".join(str(length) for length in sorted(fits[fits["asked"] == "batch"]["length"].unique()))
    for model, own in fits.groupby("model", sort=False):
        said = FITS.format(lengths=lengths, reserve=own["reserve"].iloc[0], positions=own["positions"].iloc[0])
        lines += ["", f"## What fits: {model}", "", said, "", tables.markdown(memory_tables.fits(own, str(model)))]
    return "\n".join(lines) + "\n"
