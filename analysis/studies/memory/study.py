"""Memory of one training step: plans against measurements, methods, estimates of others, what fits, and what saves."""

from pathlib import Path

import pandas as pd

from analysis.kit import measured, pages
from analysis.kit.data import Data
from analysis.kit.figures import file_name
from analysis.kit.study import Study
from analysis.studies.memory import draw, options, tables
from experiments.markdown import markdown
from experiments.measure.memory.schemas import FITS, MEASURED, OPTIONS, PAPER_FIGURES, PLANS, PUBLISHED
from experiments.measure.memory.setup import PRECISIONS

READING = """\
Bytes are decimal, 1 GB = 10^9; the memory of cards is in GiB. A plan is a training step on tensors without data: its
parameters, gradients, optimizer states, what the backward pass keeps and what is alive for a moment are counted as
they come and go. The peak is the most that is alive at one time, which can be less than the sum of the kinds."""
MEASUREMENT = """\
Measured is what torch's allocator held at the peak of a step. The resident size of the process grew by more from its
start to its peak: by what libraries load and keep for themselves, and by blocks that are free but not given back."""
ESTIMATES = """\
`theirs / ours (ratio)`, GB. LLaMA-Factory's estimates say no batch, length or precision; ours are planned peaks at
batch {batch}, length {length}, logits for every token, activations computed again in the backward pass. Its README has
a rule for each row, bytes for each parameter of the name: 18 (AMP), 8 (16 bits), 2 (freeze, LoRA, GaLore, BAdam), 1,
1/2 and 1/4 (QLoRA); what its numbers are beyond the rule is left for everything else. What these bytes are for, in
brackets below, is our reading. LoRA and QLoRA: r = 8 on all linear weights, which fused experts are not."""
FITTING = """\
Largest batch at {lengths} tokens a row, then the longest row at batch 1; –: not one row fits. {reserve:g} GiB of each
card are kept free for the CUDA context, libraries and gaps (assumed, not measured). Rows may be longer than the
{positions} tokens that the model was pretrained for, where its positions are rotary."""


FILES = (MEASURED, OPTIONS, PLANS, PUBLISHED, PAPER_FIGURES, FITS)


def saved(data: Data) -> pd.DataFrame:
    """What options save and cost."""
    return options.savings(data.read(OPTIONS))


def summary(data: Data) -> pd.DataFrame:
    """table.csv: part, model, case, unit, theirs (or measured), ours, ratio (ours / theirs)."""
    columns = ["part", "model", "case", "unit", "theirs", "ours", "ratio"]
    steps, published, paper = (data.read(schema) for schema in (MEASURED, PUBLISHED, PAPER_FIGURES))
    steps = steps.assign(
        part="measured", case=[options.case(row) for row in steps.to_dict("records")], unit="B",
        theirs=steps["measured_peak"], ours=steps["predicted_peak"],
        ratio=steps["predicted_peak"] / steps["measured_peak"],
    )  # fmt: skip
    published = published.assign(part="LLaMA-Factory", case=published["ours"], unit="B", ours=published["peak"])
    paper = paper.assign(part=paper["source"], model="", case=paper["quantity"])
    return pd.concat([frame[columns] for frame in (steps, published, paper)], ignore_index=True)


def precisions(data: Data) -> list[str]:
    """What the names of precisions mean, a list item each."""
    used = dict.fromkeys([*data.read(MEASURED)["precision"], *data.read(PLANS)["precision"]])
    return [f"- {name}: {PRECISIONS[name]}" for name in used]


def planned(data: Data) -> str:
    """The plans of each model, activations kept and computed again."""
    blocks = []
    for (model, again), own in data.read(PLANS).groupby(["model", "checkpointing"], sort=False):
        first, how = own.iloc[0], "computed again in the backward pass" if again else "kept"
        blocks.append(f"## {model}: batch {first['batch']}, length {first['length']}, activations {how}")
        blocks.append(markdown(tables.methods(own)))
    return "\n\n".join(blocks)


def fitting(data: Data) -> str:
    """What fits on a card, model by model."""
    blocks, rows = [], data.read(FITS)
    lengths = " / ".join(str(length) for length in sorted(rows[rows["asked"] == "batch"]["length"].unique()))
    for model, own in rows.groupby("model", sort=False):
        first = own.iloc[0]
        said = FITTING.format(lengths=lengths, reserve=first["reserve"], positions=first["positions"])
        blocks += [f"## What fits: {model}", said, markdown(tables.fits(own))]
    return "\n\n".join(blocks)


def estimates(data: Data) -> str:
    """How to read the table of others' estimates."""
    first = data.read(PUBLISHED).iloc[0]
    return ESTIMATES.format(batch=first["batch"], length=first["length"])


def draw_plans(data: Data, _: Path) -> list[Path]:
    """bytes_<model>.png for each model."""
    paths = []
    for model, own in data.read(PLANS).groupby("model", sort=False):
        how = {True: "computed again", False: "kept"}
        panels = {f"{model}, activations {how[bool(again)]}": rows for again, rows in own.groupby("checkpointing")}
        paths.append(draw.draw_bytes(panels, data.folder / f"bytes_{file_name(str(model))}.png"))
    return paths


def draw_fits(data: Data, _: Path) -> list[Path]:
    """fits_<model>.png for each model."""
    return [
        draw.draw_fits(own, str(model), data.folder / f"fits_{file_name(str(model))}.png")
        for model, own in data.read(FITS).groupby("model", sort=False)
    ]


STUDY = Study(
    runs=None,
    reads=(*(schema.file for schema in FILES), measured.MACHINE),
    tables={"table.csv": summary},
    page=[
        "# Memory of one training step",
        READING,
        pages.under("Precision:", precisions),
        pages.under(
            "## Predicted and measured",
            lambda data: options.verdict(data.read(MEASURED)),
            MEASUREMENT,
            pages.table(lambda data: options.table(data.read(MEASURED))),
            pages.under("Measured on", pages.machine()),
        ),
        pages.under(
            "## What saves, and what it costs",
            options.READING,
            pages.table(lambda data: options.texts(data.once(saved))),
        ),
        planned,
        pages.under(
            "## LLaMA-Factory's estimates",
            estimates,
            pages.table(lambda data: tables.published(data.read(PUBLISHED))),
            pages.table(lambda data: tables.differences(data.read(PUBLISHED))),
        ),
        pages.under(
            "## The LoRA paper's figures", pages.table(lambda data: tables.paper_figures(data.read(PAPER_FIGURES)))
        ),
        fitting,
    ],
    figures={
        "measured.png": lambda data, path: options.draw_measured(data.read(MEASURED), path),
        "bytes.png": draw_plans,
        "published.png": lambda data, path: draw.draw_published(data.read(PUBLISHED), path),
        "fits.png": draw_fits,
        "options.png": lambda data, path: options.draw_options(data.once(saved), path),
    },
)
