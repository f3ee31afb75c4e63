"""Columns of what is derived: runs.csv, which every study of runs has, and those that many tables share."""

from __future__ import annotations

from experiments.csv_schema import Column, Schema

RUNS = Schema(
    "every study of runs", "runs.csv", "a run, a split and a metric", ("run_id", "split", "metric"), "make STUDY",
    (
        Column("run_id", str, "the run, as in results/runs"),
        Column("study", str, "the study"),
        Column("model", str, "model.name"),
        Column("task", str, "task.name"),
        Column("method", str, "method.name; in studies of LoRA's variants the method's label"),
        Column("weight_types", str, "that LoRA adapts, joined by +; empty for other methods"),
        Column("r", str, "method.r: a number, a mapping from weight types, or empty"),
        Column("alpha", str, "method.alpha, as r"),
        Column("lr", float, "training.lr, chosen where it was tuned"),
        Column("seed", int, "seed of the run"),
        Column("trainable_params", int, "parameters that are trained, the head's among them"),
        Column("split", str, "validation, scored after the last epoch, or test, read once"),
        Column("metric", str, "a metric of the task, or loss"),
        Column("value", float, "the metric as a fraction, but NIST and CIDEr as they are; loss in nats"),
        Column("train_seconds", float, "of training steps alone", "s"),
        Column("tokens_per_second", float, "tokens trained on, without padding; empty: nothing was trained", "1/s"),
        Column("peak_memory_bytes", float, "of the whole run: allocated on a GPU, else the resident size", "bytes"),
        Column("role", str, "study, tuning (of a learning rate), or study+tuning"),
        Column("label", str, "the method's name, variants of LoRA and optimizers told apart"),
        Column("settings", str, "the method's other settings in short"),
        Column("head_lr", float, "training.head_lr; empty: the head learns at lr"),
    ),
)  # fmt: skip

SHARED = (
    Column("mean", float, "over seeds, of the test split's main metric unless the file says otherwise"),
    Column("interval", float, "half-width of the 95% Student-t interval of what is left of it; empty: one seed"),
    Column("n", int, "how many seeds"),
    Column("pairs", int, "seeds that both sides of a comparison have"),
    Column("difference", float, "mean of the differences of pairs"),
    Column("p", float, "of a two-sided paired t-test"),
    Column("p_holm", float, "the same, corrected by Holm's method for all tests of its family"),
    Column("chosen", bool, "the learning rate that was taken, in learning_rates.csv"),
    Column("at_edge", bool, "the best learning rate is the lowest or highest that was tried"),
    Column("collapsed", int, "how many more runs there are, which have collapsed; in runs.csv: whether the run has"),
    Column("layer", str, "number of a layer, from 0"),
    Column("weight_type", str, "q, k, v, o, up, gate or down"),
    Column("side", str, "of singular vectors: right (inputs) or left (outputs); A or B"),
    Column("phi", float, "similarity of two subspaces, 0 to 1 (paper, equation 4)"),
)
