"""The families of methods and their order in tables and figures, by what they are called."""

import pandas as pd

from experiments.method_names import label as label  # what a method is called, for all that reads this
from experiments.method_names import settings as settings
from experiments.method_names import title as title

FAMILIES = {
    "full and partial": (
        "full", "galore", "badam", "freeze", "ft_top2", "bitfit", "norm_only", "head_only", "frozen",
    ),
    "adapters": ("adapter_h", "adapter_l", "adapter_p", "adapter_d"),
    "prefixes": ("prefix_embed", "prefix_layer", "lora+prefix_embed", "lora+prefix_layer"),
    "LoRA: update rule": ("lora", "rslora", "dora", "lora_plus"),
    "LoRA: start": (
        "kaiming", "orthogonal", "pissa", "lora_ga", "loftq", "gaussian_b", "both_gaussian", "both_zero",
    ),
    "others": (),
}  # fmt: skip
_PLACES = {label: (family, place) for family, labels in FAMILIES.items() for place, label in enumerate(labels)}


def family(name: str) -> str:
    """The family of a label, a key of FAMILIES."""
    return _place(name)[0]


def order(name: str) -> tuple[int, int, str]:
    """Sort key of a label: methods come in the same order in every table and figure."""
    of, place = _place(name)
    return list(FAMILIES).index(of), place, name


def _place(name: str) -> tuple[str, int]:
    return _PLACES.get(name) or _PLACES.get(name.partition("+")[0]) or ("others", 0)


def arranged(runs: pd.DataFrame) -> pd.DataFrame:
    """runs by model and task, and in each the methods in their order, small before large, then by rate and seed."""
    places = {name: place for place, name in enumerate(sorted(runs["label"].unique(), key=order))}
    by = ["model", "task", "place", "trainable_params", "settings", "lr", "seed"]
    return (
        runs.assign(place=runs["label"].map(places))
        .sort_values(by, kind="stable", ignore_index=True)
        .drop(columns="place")
    )


def keys(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Label and settings of each row."""
    return list(zip(frame["label"], frame["settings"], strict=True))


def methods(frame: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs of label and settings in a frame, in the order of the labels."""
    return sorted(dict.fromkeys(keys(frame)), key=lambda key: order(key[0]))
