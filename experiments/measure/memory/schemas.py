"""The CSV files of the study of memory: what is planned, and what is measured beside it."""

from __future__ import annotations

from experiments.csv_schema import Column, Schema
from experiments.measure.schemas import command

_STEP = (
    Column("setup", str, "first 12 hex digits of the hash of what the plan follows from"),
    Column("model", str, "model.name"),
    Column("method", str, "the method's label"),
    Column("settings", str, "the method's other settings in short"),
    Column("quantization", str, "of the base weights; empty: none"),
    Column("precision", str, "fp32, bf16 (trained weights in fp32), amp (16 bits, fp32 copies) or pure16"),
    Column("batch", int, "rows of a step"),
    Column("length", int, "tokens of a row"),
    Column("targets", str, "tokens of a row that have logits; empty: a classifier"),
    Column("checkpointing", bool, "activations are computed again in the backward pass"),
    Column("state_precision", str, "bf16, or empty: the moments' own"),
    Column("device", str, "cpu or cuda, whose attention kernels differ"),
    Column("total_params", int, "parameters of the model"),
    Column("trainable_params", int, "of them trained"),
    Column("checkpoint_bytes", int, "of what is trained, as a run stores it", "bytes"),
)
_KINDS = (
    Column("weights", int, "of the model as it is held, with scales, and what the method adds", "bytes"),
    Column("master", int, "fp32 copies of trained weights in 16 bits", "bytes"),
    Column("gradients", int, "of what is trained", "bytes"),
    Column("optimizer", int, "moments, and what else the optimizer keeps", "bytes"),
    Column("activations", int, "that the backward pass needs, without logits", "bytes"),
    Column("logits", int, "with their gradients and log-probabilities", "bytes"),
    Column("temporary", int, "what else is alive at the peak", "bytes"),
)
_PEAK = Column("peak", int, "the most that is alive at one time", "bytes")
_NOTES = Column("notes", str, "of the planner, joined by |")

SETUPS = Schema(
    "memory", "setups.csv", "a planned training step", ("setup",), command("memory.tables"),
    (*_STEP, *_KINDS, _PEAK, _NOTES),
)  # fmt: skip
PLANS = Schema(
    "memory", "plans.csv", "a model, a method and checkpointing", ("model", "title", "checkpointing"),
    command("memory.tables"), (Column("title", str, "the method as tables name it"), *SETUPS.columns),
)  # fmt: skip
PLAN = Schema(
    "", "plan.csv", "a method and a precision", ("setup",), f"{command('memory')} … --out FOLDER", SETUPS.columns
)

MEASURED = Schema(
    "memory", "measured.csv", "a measured training step", ("setup",), command("memory.peaks"),
    (
        *_STEP,
        _NOTES,
        *(Column(f"predicted_{one.name}", int, f"planned: {one.what}", one.unit) for one in (*_KINDS, _PEAK)),
        Column("measured_peak", int, "allocated by torch at the peak of a step", "bytes"),
        Column("resident_peak", int, "largest resident size of the process", "bytes"),
        Column("resident_before", int, "resident size before the model was loaded", "bytes"),
        Column("ratio", float, "predicted_peak / measured_peak"),
    ),
)  # fmt: skip

OPTIONS = Schema(
    "memory", "options.csv", "a step with an option, in a round", ("model", "option", "round"),
    command("memory.options"),
    (
        Column("model", str, "model.name, fully fine-tuned"),
        Column("batch", int, "rows of a step"),
        Column("length", int, "tokens of a row"),
        Column("precision", str, "fp32 or bf16"),
        Column("option", str, "none, or what is other than usual"),
        Column("round", int, "from 0; every option has one step in it"),
        Column("seconds", float, "of the step", "s"),
        Column("peak", int, "allocated by torch, the same in all rounds of an option", "bytes"),
    ),
)  # fmt: skip

PUBLISHED = Schema(
    "memory", "published.csv", "a cell of LLaMA-Factory's table and a method of ours",
    ("method", "bits", "size", "ours"), command("memory.tables"),
    (
        Column("method", str, "theirs"),
        Column("bits", str, "16, 8, 4, 2 or AMP"),
        Column("size", str, "nominal, as 7B"),
        Column("theirs", int, "their estimate", "bytes"),
        Column("model", str, "the config that is planned"),
        Column("ours", str, "the method that is planned"),
        *(one for one in _STEP if one.name in ("precision", "batch", "length", "targets", "checkpointing")),
        Column("peak", int, "planned", "bytes"),
        Column("ratio", float, "peak / theirs"),
        Column("nominal_params", int, "parameters by the name of the model"),
        *(one for one in _STEP if one.name in ("total_params", "trainable_params")),
        *_KINDS,
        Column("by_parameters", int, "of peak - theirs: from parameters beyond the nominal number", "bytes"),
        Column("by_states", int, "of peak - theirs: from states beyond the rule's", "bytes"),
        Column("by_rest", int, "of peak - theirs: all else", "bytes"),
        Column("why", str, "the same in words"),
    ),
)  # fmt: skip

PAPER_FIGURES = Schema(
    "memory", "paper_figures.csv", "a number that the paper or a guide says", ("quantity", "source"),
    command("memory.tables"),
    (
        Column("quantity", str, "of what"),
        Column("source", str, "who says it"),
        Column("unit", str, "of theirs and ours"),
        Column("theirs", float, "what they say", "see unit"),
        Column("ours", float, "planned", "see unit"),
        Column("ratio", float, "ours / theirs"),
        Column("how", str, "what ours is made of"),
    ),
)  # fmt: skip

FITS = Schema(
    "memory", "fits.csv", "a model, a method and a card, and what is asked for",
    ("model", "method", "checkpointing", "card", "asked", "length"), command("memory.tables"),
    (
        Column("model", str, "the config that is planned"),
        Column("positions", int, "tokens that it was pretrained for"),
        Column("method", str, "the method as tables name it"),
        Column("precision", str, "as in setups.csv"),
        Column("checkpointing", bool, "activations are computed again in the backward pass"),
        Column("reserve", float, "of the card, that no step gets", "GiB"),
        Column("card", float, "memory of the card", "GiB"),
        Column("asked", str, "batch: the largest batch of this length; length: the longest row"),
        Column("length", int, "tokens of a row"),
        Column("batch", int, "rows; 0: not one fits"),
    ),
)  # fmt: skip
