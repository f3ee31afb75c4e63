"""Made-up tables of studies, one maker a claim, in which the claim's statistic has the values that a test asks for.

A maker writes into a folder results/<preset> and takes the values of the statistic, one a replicate (a seed, a pair of
runs, a round): their mean, for ratios their geometric mean, is the estimate of the claim's first case.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

Values = Sequence[float]
Maker = Callable[[Path, Values], None]
MODEL, TASK = "tiny", "reviews"


def write(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, index=False)


def run(label: str, seed: int, test: float, validation: float = 0.5, **fields: Any) -> list[dict[str, Any]]:
    """The rows of one run: loss and accuracy on both splits."""
    about: dict[str, Any] = {
        "model": MODEL, "task": TASK, "method": "lora", "label": label, "settings": "", "weight_types": "q+v", "r": 8,
        "alpha": 16, "lr": 1e-3, "seed": seed, "trainable_params": 1000, "tokens_per_second": 100,
        "peak_memory_bytes": 1000, "role": "study",
    } | fields  # fmt: skip
    about["run_id"] = "-".join(f"{about[name]}" for name in about if name not in ("method", "trainable_params", "role"))
    scores = {("validation", "accuracy"): validation, ("test", "accuracy"): test}
    scores |= {("validation", "loss"): 1 - validation, ("test", "loss"): 1 - test}
    order = [("validation", "loss"), ("validation", "accuracy"), ("test", "loss"), ("test", "accuracy")]
    return [about | {"split": split, "metric": metric, "value": scores[split, metric]} for split, metric in order]


WRITTEN = {"task": f"text_{TASK}"}  # a classifier's task asked as text is judged by the loss


def two(study: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], *decoys: Mapping[str, Any]) -> Maker:
    """Runs of two settings, `ours` above `theirs` by the values; decoys are better on test data, but are not to be
    compared: worse on validation data, if nothing else is said."""

    def make(folder: Path, values: Values) -> None:
        rows: list[dict[str, Any]] = []
        for seed, value in enumerate(values):
            base = 0.5 + 0.01 * seed
            rows += run(**{"label": "lora", "seed": seed, "test": base + value} | dict(ours))
            rows += run(**{"label": "lora", "seed": seed, "test": base} | dict(theirs))
            for decoy in decoys:
                rows += run(**{"label": "lora", "seed": seed, "test": 0.99, "validation": 0.1} | dict(decoy))
        write(folder, f"{study}/runs.csv", rows)

    return make


def q_alone(folder: Path, values: Values) -> None:
    rows: list[dict[str, Any]] = []
    for seed, value in enumerate(values):
        for weight_types, gain in (("q", 0.1 + value), ("q+v", 0.1)):
            rows += run("lora", seed, 0.5, weight_types=weight_types, r=1)
            rows += run("lora", seed, 0.5 + gain, weight_types=weight_types, r=8)
    write(folder, "rank_ablation/runs.csv", rows)


def larger_base(folder: Path, values: Values) -> None:
    """log2 of the least rank: 0 or more for the larger base, and `values` less of it for the smaller."""
    rows: list[dict[str, Any]] = []
    for seed, value in enumerate(values):
        least = {"small": max(0, -round(value)), "large": max(0, round(value))}
        for (model, enough), power in itertools.product(least.items(), range(8)):
            params = 2**power * (1000 if model == "large" else 100)
            test = 0.8 if power >= enough else 0.7
            rows += run("lora", seed, test, model=model, r=2**power, trainable_params=params)
    write(folder, "rank_ablation/runs.csv", rows)


def regret(folder: Path, values: Values) -> None:
    """The advice's regret; a rival's must not be read."""
    rows = [
        {"model": MODEL, "task": TASK, "contender": name, "run_id": f"{name} {seed}", "seed": seed, "regret": own}
        for seed, value in enumerate(values)
        for name, own in (("the advice", value), ("r = 8 on q v", 9.0))
    ]
    write(folder, "advice-study/regret.csv", rows)


def more_data(folder: Path, values: Values) -> None:
    rows: list[dict[str, Any]] = []
    for seed, value in enumerate(values):
        for n, gain in ((100, 0.02), (2000, 0.02 + value)):
            for r in (1, 64):
                rows += run("lora", seed, 0.5 + gain * (r > 1), r=r, train_examples=n)
    write(folder, "rank_data/runs.csv", rows)


def alpha_spread(r: int) -> Maker:
    """At one rank, and with nothing in it at the other."""

    def make(folder: Path, values: Values) -> None:
        rows: list[dict[str, Any]] = []
        settings = ((1, 3e-3, 0.5), (64, 3e-3, 0.7), (1, 1e-2, 0.6), (64, 1e-3, 0.8))
        for seed, value in enumerate(values):
            for rank, (alpha, lr, score) in itertools.product((4, 64), settings):
                more = value if (rank, lr, alpha) == (r, 1e-3, 64) else 0.0
                rows += run("lora", seed, score + more, r=rank, alpha=alpha, lr=lr)
        write(folder, "alpha/runs.csv", rows)
        kinds = [("fixed", 1, 3e-3), ("fixed", 64, 3e-3), ("tuned", 1, 1e-2), ("tuned", 64, 1e-3)]
        about = {"model": MODEL, "task": TASK}
        write(
            folder, "alpha/table.csv",
            [about | {"r": rank, "kind": kind, "alpha": a, "lr": lr} for rank in (4, 64) for kind, a, lr in kinds],
        )  # fmt: skip

    return make


def alpha_slope(folder: Path, values: Values) -> None:
    """A tuning seed a value: the best rate is (alpha / r) to that power, and others are worse on validation data."""
    rows: list[dict[str, Any]] = []
    for (seed, value), alpha in itertools.product(enumerate(values), (4, 16, 64)):
        best = 1e-3 * (alpha / 4) ** value
        for factor, score in ((1, 0.8), (2, 0.7), (0.5, 0.6)):
            rows += run("lora", seed, 0.5, score, r=4, alpha=alpha, lr=best * factor, role="tuning")
    write(folder, "alpha/runs.csv", rows)


def both_zero(folder: Path, values: Values) -> None:
    about = {"model": MODEL, "task": TASK, "n": len(values)}
    starts = {"gaussian": np.nan, "both_zero": np.mean(values)}
    write(folder, "init/table.csv", [about | {"init": init, "largest_entry": entry} for init, entry in starts.items()])


def rates(folder: Path, values: Values) -> None:
    """A task a value; a method that was not tuned must not be read."""
    rows: list[dict[str, Any]] = []
    for index, value in enumerate(values):
        where = {"task": f"task{index}"}
        rows += run("lora", 0, 0.5, lr=1e-3 * value, role="study+tuning", **where)
        rows += run("full", 0, 0.5, lr=1e-3, role="study+tuning", **where)
        rows += run("lora", 0, 0.4, lr=7, role="tuning", **where)
        rows += run("lora", 0, 0.9, validation=0.9, lr=5, settings="untuned", **where)
    write(folder, "compare_methods/runs.csv", rows)


def few_examples(folder: Path, values: Values) -> None:
    rows: list[dict[str, Any]] = []
    for seed, value in enumerate(values):
        for label, n, score in (("lora", 50, 0.9), ("lora", 100, 0.5 + value), ("full", 100, 0.5), ("full", 900, 0.1)):
            rows += run(label, seed, score, train_examples=n, shots=0, **WRITTEN)
        rows += run("lora", seed, 0.1, train_examples=900, shots=0, **WRITTEN)
    write(folder, "table16/runs.csv", rows)


def prompts_below(folder: Path, values: Values) -> None:
    """Without demonstrations the prompt is best and has no spread, so that the values are what is left."""
    rows: list[dict[str, Any]] = []
    for seed, value in enumerate(values):
        rows += run("frozen", seed, 0.6, train_examples=256, shots=0)
        rows += run("frozen", seed, 0.5, train_examples=256, shots=2)
        rows += run("lora", seed, 0.9, train_examples=16, shots=0)
        rows += run("lora", seed, 0.6 + value, train_examples=256, shots=0)
        rows += run("lora", seed, 0.9, train_examples=1000, shots=0)
    write(folder, "table8/runs.csv", rows)


def _trials(folder: Path, cells: Sequence[tuple[int, int, int, str, float]]) -> None:
    """latency/trials.csv of (round, batch, length, contender, slow-down): the control's pace is that of its round and
    size, and an adapter has two bottlenecks around its slow-down."""
    rows = []
    for index, batch, length, contender, slower in cells:
        for bottleneck, shift in ((8, -0.1), (64, 0.1)) if contender.startswith("adapter") else ((0, 0.0),):
            about = {"model": MODEL, "batch": batch, "length": length, "contender": contender, "round": index}
            seconds = batch * length * (1 + index) * (1 + slower + shift)
            rows.append(about | {"bottleneck": bottleneck, "seconds": seconds})
    write(folder, "latency/trials.csv", rows)


def latency(*contenders: str) -> Maker:
    """A round a value: by how much contenders are slower than the control, more at one size and less at another. A
    round that has not been through all sizes must not be read."""

    def make(folder: Path, values: Values) -> None:
        cells: list[tuple[int, int, int, str, float]] = []
        for index, value in enumerate(values):
            for length, shift in ((1, -0.1), (2, 0.1)):
                cells.append((index, 1, length, "control", 0.0))
                cells += [(index, 1, length, contender, value + shift) for contender in contenders]
        cells += [(len(values), 1, 1, name, 9.0 if name in contenders else 0.0) for name in ("control", *contenders)]
        _trials(folder, cells)

    return make


def falling(over: str) -> Maker:
    """A round a value: the slope over one size, with a level of its own at each of the other."""

    def make(folder: Path, values: Values) -> None:
        cells: list[tuple[int, int, int, str, float]] = []
        for (index, value), place, group in itertools.product(enumerate(values), (0, 1, 2), (1, 2)):
            batch, length = (2**place, group) if over == "batch" else (group, 2**place)
            cells.append((index, batch, length, "control", 0.0))
            cells += [(index, batch, length, name, group + value * place) for name in ("adapter_h", "adapter_l")]
        _trials(folder, cells)

    return make


def quarter_faster(folder: Path, values: Values) -> None:
    rows: list[dict[str, Any]] = []
    for seed, value in enumerate(values):
        rows += run("lora", seed, 0.5, tokens_per_second=1000 * value * (1 + seed))
        rows += run("full", seed, 0.5, tokens_per_second=1000 * (1 + seed))
    write(folder, "compare_methods/runs.csv", rows)


def measured_third(folder: Path, values: Values) -> None:
    """A size a value, of LoRA at two ranks around it; steps with quantised weights or 16-bit moments do not count."""
    rows: list[dict[str, Any]] = []
    for index, value in enumerate(values):
        size = {"model": MODEL, "batch": 2**index, "length": 32, "checkpointing": index > 0}
        rows += [
            size | {"method": method, "quantization": quantization, "state_precision": moments, "measured_peak": peak}
            for method, quantization, moments, peak in (
                ("full", "", "", 1e6), ("lora", "", "", 5e5 * value), ("lora", "", "", 2e6 * value),
                ("lora", "nf4", "", 1), ("full", "", "bf16", 1), ("badam", "", "", 1),
            )
        ]  # fmt: skip
    write(folder, "memory/measured.csv", rows)


def planned_third(own: float, other: float) -> Maker:
    """A size a value, of a model of `own` parameters; another, of another size, must not be read."""

    def make(folder: Path, values: Values) -> None:
        rows: list[dict[str, Any]] = []
        for (index, value), (model, size, share) in itertools.product(
            enumerate(values), (("one", own, None), ("another", other, 0.9))
        ):
            about = {"model": model, "batch": 1, "length": 2**index, "checkpointing": False, "total_params": size}
            peaks = {"full, AMP": 1000, "LoRA": 1000 * (share or value), "BAdam": 1}
            rows += [about | {"title": title, "peak": peak} for title, peak in peaks.items()]
        write(folder, "memory/plans.csv", rows)

    return make


def checkpointing(folder: Path, values: Values) -> None:
    """A round a value, each at a pace of its own."""
    options = {"none": 0.0, "checkpointing": 1.0, "bf16 moments": 9.0}
    rows = [
        {"model": MODEL, "option": option, "round": index, "seconds": (1 + index) * (1 + share * value)}
        for index, value in enumerate(values)
        for option, share in options.items()
    ]
    write(folder, "memory/options.csv", rows)


def forgets_less(folder: Path, values: Values) -> None:
    """LoRA's two settings rise by 1 less and 1 more than their mean, and two texts by 0.5: their means count."""
    about = {"model": MODEL, "task": TASK}
    rows = []
    for (seed, value), (text, more) in itertools.product(enumerate(values), (("news", -0.5), ("posts", 0.5))):
        for label, settings, rise in (("full", "", 2), ("lora", "r=1", 1 + value), ("lora", "r=8", 3 + value)):
            own = {"label": label, "settings": settings, "seed": seed, "run_id": f"{label}{settings}{seed}"}
            shift = more if label == "lora" else 0.0
            rows.append(about | own | {"text": text, "loss_before": 3 + seed, "loss_after": 3 + seed + rise + shift})
    write(folder, "forgetting/forgetting.csv", rows)
