"""The CSV files that are measured: on stored runs, of latency, of gradients; those of memory: `memory.schemas`."""

from __future__ import annotations

from experiments.csv_schema import Column, Schema


def command(name: str) -> str:
    """The command of a measurement."""
    return f"python -m experiments.measure.{name}"


_RUN = (
    Column("run_id", str, "the run, as in results/runs"),
    Column("model", str, "model.name of the run"),
    Column("task", str, "task.name of the run"),
    Column("method", str, "method.name of the run"),
)
_RANK = Column("r", str, "method.r of the run: a number, a mapping, or empty for a method without")
_SEED = Column("seed", int, "seed of the run")

FORGETTING = Schema(
    "forgetting", "forgetting.csv", "a run and a held-out text", ("run_id", "text"), command("forgetting"),
    (
        *_RUN,
        Column("label", str, "the method's name, variants of LoRA and optimizers told apart"),
        Column("settings", str, "the method's other settings in short"),
        _RANK,
        _SEED,
        Column("text", str, "the held-out text: a corpus, or the name of a file"),
        Column("loss_before", float, "mean of -log p over the tokens of all windows, base model", "nats a token"),
        Column("loss_after", float, "the same, of the trained model", "nats a token"),
        Column("windows", int, "windows that were read"),
        Column("tokens", int, "tokens of a window"),
        Column("sha256", str, "first 12 hex digits of the hash of the documents and the size of the windows"),
    ),
)  # fmt: skip

TRUNCATION = Schema(
    "truncation", "truncation.csv", "a run, a rank k, a split and a metric", ("run_id", "k", "split", "metric"),
    command("truncation"),
    (
        *_RUN,
        _RANK,
        _SEED,
        Column("k", int, "rank to which the update is cut; the largest of a run: not at all"),
        Column("split", str, "validation or test; update: what is kept of the update"),
        Column("metric", str, "a metric of the task, loss, or with split update: energy"),
        Column("value", float, "the metric, as the task defines it; loss in nats; energy: a share of ||delta_w||_F^2"),
    ),
)  # fmt: skip

_BASE = (
    Column("model", str, "model.name"),
    Column("quantization", str, "none, int8, nf4 or int2"),
    Column("start", str, "LoftQ's start with the settings of its method, else empty"),
    Column("precision", str, "of the run that stands for it: fp32 or bf16"),
)
BASE_KEY = tuple(column.name for column in _BASE)

QUANTIZED_BASE = Schema(
    "qlora", "quantized_base.csv", "a base model as runs start from it, and a measure", (*BASE_KEY, "measure", "on"),
    command("quantized_base"),
    (
        *_BASE,
        Column("measure", str, "bits, bytes, loss or hidden_error"),
        Column("on", str, "layers (the quantised ones), model (all of it), or the held-out text"),
        Column(
            "value", float, "bits of a weight; bytes; mean loss; ||H - H_q||_F / ||H||_F of the last hidden states",
            "bits, bytes, nats a token, a share",
        ),
        Column("sha256", str, "of the held-out texts, as in forgetting.csv, joined by commas"),
    ),
)  # fmt: skip

QUANTIZED_WEIGHTS = Schema(
    "qlora", "quantized_weights.csv", "a quantised weight of a base model", (*BASE_KEY, "module"),
    command("quantized_base"),
    (
        *_BASE,
        Column("module", str, "name of the layer in the model"),
        Column("weight_type", str, "its weight type, q k v o up gate down, joined by +"),
        Column("layer", str, "number of its layer, or None"),
        Column("d", int, "outputs, the rows of W"),
        Column("k", int, "inputs, the columns of W"),
        Column("error", float, "||W - W_q||_F / ||W||_F", "a share"),
    ),
)  # fmt: skip

TRIALS = Schema(
    "latency", "trials.csv", "a timed forward pass", ("model", "batch", "length", "contender", "bottleneck", "round"),
    command("latency"),
    (
        Column("model", str, "a shape, or the folder or hub id of a config; weights are random"),
        Column("batch", int, "rows"),
        Column("length", int, "tokens of a row"),
        Column("contender", str, "base, control, lora_merged, lora_unmerged, adapter_h or adapter_l"),
        Column("bottleneck", int, "of an adapter; 0: none"),
        Column("added_parameters", int, "that a pass uses beyond the base model's"),
        Column("round", int, "from 0; every contender has one pass in it"),
        Column("seconds", float, "of the pass", "s"),
    ),
)  # fmt: skip

CHECKS = Schema(
    "gradients", "checks.csv", "a gradient of a kind of module, in a precision, at a rank",
    ("model", "module", "weight_type", "gradient", "precision", "r"), command("gradients"),
    (
        Column("module", str, "class of the adapted layer"),
        Column("weight_type", str, "q, k, v, …; joined by + where one module is several"),
        Column("gradient", str, "dL/dA, dL/dB or dL/dx"),
        Column("modules", int, "how many such modules"),
        Column("error", float, "largest deviation of an entry from autograd's, over its largest entry", "a share"),
        Column("model", str, "what it was checked on"),
        Column("precision", str, "fp64 or fp32"),
        Column("r", int, "rank of the adapters"),
    ),
)  # fmt: skip

STEPS = Schema(
    "gradients", "steps.csv", "a start after so many steps", ("model", "start", "step"), command("gradients"),
    (
        Column("start", str, "method.init"),
        Column("step", int, "steps of AdamW on one batch"),
        Column("loss", float, "of the batch", "nats"),
        *(
            Column(f"{name}_{side}", float, f"Frobenius norm over all adapters {what.format(side)}")
            for side in "AB"
            for name, what in (("norm", "of {}"), ("gradient", "of dL/d{}"), ("moved", "of {} minus its start"))
        ),
        Column("model", str, "what is trained"),
    ),
)  # fmt: skip

FLOPS = Schema(
    "gradients", "flops.csv", "a pass of full fine-tuning, or of LoRA at a rank",
    ("model", "method", "r", "weight_types", "texts", "tokens", "pass"), command("gradients"),
    (
        Column("method", str, "full or lora"),
        Column("r", int, "rank; 0: full fine-tuning"),
        Column("weight_types", str, "that LoRA adapts"),
        Column("texts", int, "rows of the batch"),
        Column("tokens", int, "of a row"),
        Column("pass", str, "forward or backward"),
        Column("counted", int, "of products with weights, as torch ran them", "FLOPs"),
        Column("exact", int, "the same by formula, module by module", "FLOPs"),
        Column("rule", int, "the same by the rule of thumb", "FLOPs"),
        Column("attention", int, "of attention's own products, counted", "FLOPs"),
        Column("seconds", float, "of the pass, median over trials", "s"),
        Column("seconds_low", float, "the fastest", "s"),
        Column("seconds_high", float, "the slowest", "s"),
        Column("ratio", float, "seconds over those of full fine-tuning in the same trial, median over trials"),
        Column("ratio_low", float, "the lowest"),
        Column("ratio_high", float, "the highest"),
        Column("trials", int, "trials"),
        Column("threads", int, "threads of torch"),
        Column("device", str, "cpu, cuda or mps"),
        Column("model", str, "what was timed"),
    ),
)  # fmt: skip
