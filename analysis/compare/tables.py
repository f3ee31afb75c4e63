"""Tables of adapters side by side: a summary, which modules they share, and how alike their updates are there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.compare.measures import SIDES, Module
from analysis.weights.beside import Account
from analysis.weights.updates import Updates
from lora.config import WEIGHT_TYPES

NONE = "–"
BESIDE_COLUMNS = ["adapter", "parameter", "what", "shape", "numbers", "norm", "norm_base", "norm_change"]
FAR = 3  # standard deviations of a random update's cosine beyond which one is called above chance


def beside_rows(names: Sequence[str], accounts: Sequence[Account]) -> pd.DataFrame:
    """beside.csv: a row for each tensor that an adapter stores beside its updates."""
    rows = [
        {"adapter": name, "parameter": row.name, "what": row.what, "shape": " x ".join(map(str, row.shape)),
         "numbers": row.numbers, "norm": row.norm, "norm_base": row.norm_base, "norm_change": row.norm_change}
        for name, account in zip(names, accounts, strict=True)
        for row in account.rows
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=BESIDE_COLUMNS)


def beside_cells(rest: pd.DataFrame) -> pd.DataFrame:
    """What is stored beside the updates, as cells: of tensors that are the same but for their layer one row."""
    like = rest["parameter"].str.replace(r"(?<=\.)\d+(?=\.)", "*", regex=True)
    rows = []
    for (adapter, name, what, shape), own in rest.groupby(["adapter", like, "what", "shape"], sort=False):
        shown = own["parameter"].iloc[0] if len(own) == 1 else name
        rows.append({
            "adapter": adapter, "parameter": f"`{shown}`", "what": what, "shape": shape, "tensors": str(len(own)),
            "numbers": f"{own['numbers'].sum():,}", "‖P‖": spread(own["norm"]), "‖ΔP‖": spread(own["norm_change"]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def summarise(adapters: Sequence[Updates], modules: pd.DataFrame, rest: pd.DataFrame) -> pd.DataFrame:
    """summary.csv, a row an adapter, from modules.csv: norms over all its modules, means over those that are not zero;
    from beside.csv how many tensors and numbers are stored beside them.

    relative_norm, norm_w and amplification are empty unless W is known of every module.
    """
    rows = []
    for adapter in adapters:
        own = modules[modules["adapter"] == adapter.name]
        trained = own[own["norm_delta_w"] > 0]
        norm, norm_w = (
            float(np.sqrt(np.square(own[column]).sum(skipna=False))) for column in ("norm_delta_w", "norm_w")
        )
        row: dict[str, Any] = {"adapter": adapter.name, "kind": adapter.kind, "base": adapter.base}
        row |= {name: _distinct(own[name]) for name in ("r", "scaling")}
        row |= {
            "weight_types": "+".join(sorted(own["weight_type"].unique(), key=_type_order)),
            "modules": len(own), "zero_modules": len(own) - len(trained), "parameters": int(own["parameters"].sum()),
            "norm_delta_w": norm, "norm_w": norm_w, "relative_norm": norm / norm_w,
        }  # fmt: skip
        others = rest[rest["adapter"] == adapter.name]
        row |= {"beside_tensors": len(others), "beside_parameters": int(others["numbers"].sum())}
        for name in ("stable_rank", "effective_rank", "amplification"):
            row[name] = trained[name].mean(skipna=False) if name in trained and len(trained) else np.nan
        rows.append(row)
    return pd.DataFrame(rows)


def _type_order(weight_type: str) -> tuple[int, str]:
    known = weight_type in WEIGHT_TYPES
    return WEIGHT_TYPES.index(weight_type) if known else len(WEIGHT_TYPES), weight_type


def _distinct(values: pd.Series) -> str:
    """The values that occur, or their range if there are many."""
    found = sorted(values.dropna().unique())
    return ", ".join(f"{x:g}" for x in found) if len(found) <= 3 else f"{found[0]:g}–{found[-1]:g}"


def summary_cells(summary: pd.DataFrame) -> pd.DataFrame:
    """The summary as a reader sees it: a column an adapter."""
    cells = {
        "kind": summary["kind"],
        "base": [NONE if pd.isna(base) else Path(base).name if "/" in base else base for base in summary["base"]],
        "r": summary["r"].replace("", NONE),
        "scaling s": summary["scaling"].replace("", NONE),
        "weight types": summary["weight_types"],
        "modules": [
            f"{n}" + (f" ({zero} not changed)" if zero else "")
            for n, zero in zip(summary["modules"], summary["zero_modules"], strict=True)
        ],
        "parameters": [f"{n:,}" for n in summary["parameters"]],
        "beside the matrices": [
            f"{n} tensor{'s' * (n > 1)}, {numbers:,} parameters" if n else NONE
            for n, numbers in zip(summary["beside_tensors"], summary["beside_parameters"], strict=True)
        ],
        "‖ΔW‖": _numbers(summary["norm_delta_w"]),
        "‖ΔW‖ / ‖W‖": _numbers(summary["relative_norm"]),
        "stable rank, mean": _numbers(summary["stable_rank"]),
        "effective rank, mean": _numbers(summary["effective_rank"]),
        "amplification, mean": _numbers(summary["amplification"]),
    }
    table = pd.DataFrame(cells, dtype=object).T
    table.columns = pd.Index(summary["adapter"])
    return table.rename_axis(" ").reset_index()


def _numbers(values: Iterable[float]) -> list[str]:
    return [NONE if np.isnan(value) else f"{value:.3g}" for value in values]


def spread(values: pd.Series, form: str = "{:.3g}") -> str:
    """The median and, for several values, their range."""
    values = values.dropna()
    if values.empty:
        return NONE
    low, high = values.min(), values.max()
    middle = form.format(values.median())
    return middle if len(values) == 1 else f"{middle} [{form.format(low)}, {form.format(high)}]"


def abbreviate(modules: Sequence[Module]) -> str:
    """Modules in few words: `q, v in layers 0–5; lm_head`."""
    layers: dict[str, list[str]] = {}
    for module in modules:
        layers.setdefault(module.weight_type, []).append(module.layer)
    groups: dict[tuple[str, ...], list[str]] = {}
    for weight_type in sorted(layers, key=_type_order):
        groups.setdefault(tuple(dict.fromkeys(layers[weight_type])), []).append(weight_type)
    return "; ".join(", ".join(types) + _layers(at) for at, types in groups.items())


def _layers(layers: Sequence[str]) -> str:
    numbers = sorted(int(layer) for layer in layers if layer.isdigit())
    named = [layer for layer in layers if not layer.isdigit() and layer != NONE]
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    parts += named[:3] + ["…"] * (len(named) > 3)
    return f" in layer{'s' if len(layers) > 1 else ''} {', '.join(parts)}" if parts else ""


def by_type(modules: pd.DataFrame) -> pd.DataFrame:
    """The updates by weight type and adapter, as cells: median and range over the layers."""
    columns = {
        "norm_delta_w": "‖ΔW‖", "relative_norm": "‖ΔW‖ / ‖W‖", "stable_rank": "stable rank",
        "effective_rank": "effective rank", "projection_w": "‖UᵀWV‖", "amplification": "amplification",
        "projection_random": "‖UᵀWV‖, random U and V",
    }  # fmt: skip
    shown = {name: title for name, title in columns.items() if name in modules and modules[name].notna().any()}
    rows = []
    for (weight_type, adapter), own in modules.groupby(["weight_type", "adapter"], sort=False):
        rows.append({"weight type": weight_type, "adapter": adapter, "modules": str(len(own))}
                    | {title: spread(own[name]) for name, title in shown.items()})  # fmt: skip
    return pd.DataFrame(rows)


def phi_cells(pair: pd.DataFrame) -> pd.DataFrame:
    """phi of one pair by weight type and side, as cells: median [range] over the layers, beside chance."""
    rows = []
    for weight_type, own in pair.groupby("weight_type", sort=False):
        for side in SIDES:
            here = own[own["side"] == side]
            row = {"weight type": str(weight_type), "side": side, "modules": str(here["module"].nunique())}
            for name, entry in (("1,1", first_entry(here)), ("n,n", last_entry(here))):
                row |= {
                    f"φ({name})": spread(entry["phi"], "{:.2f}"),
                    f"chance ({name})": f"{entry['chance'].mean():.3f} [{entry['chance_low'].min():.3f}, "
                    f"{entry['chance_high'].max():.3f}]",
                    f"above chance ({name})": f"{entry['above_chance'].sum()} of {len(entry)}",
                }
            rows.append(row | {"n": _distinct(last_entry(here)["i"])})
    return pd.DataFrame(rows)


def first_entry(pair: pd.DataFrame) -> pd.DataFrame:
    """The rows of phi(1,1)."""
    return pair[pair["i"] == 1]


def last_entry(pair: pd.DataFrame) -> pd.DataFrame:
    """The rows of phi(n,n), n the lower rank of the two."""
    return pair[pair["i"] == pair.groupby(["module", "weight_type", "side"])["i"].transform("max")]


def cosine_cells(pair: pd.DataFrame) -> pd.DataFrame:
    """The cosines of one pair's updates by weight type, as cells."""
    rows = []
    once = pair.drop_duplicates(["module", "weight_type"])
    for weight_type, own in once.groupby("weight_type", sort=False):
        far = int((own["cosine"].abs() > FAR * own["cosine_chance"]).sum())
        rows.append({"weight type": str(weight_type), "modules": str(len(own)),
                     "cosine": spread(own["cosine"], "{:.3f}"),
                     "chance": f"0 ± {FAR * own['cosine_chance'].max():.3f}",
                     "beyond chance": f"{far} of {len(own)}"})  # fmt: skip
    return pd.DataFrame(rows)


def verdict(pair: pd.DataFrame) -> list[str]:
    """What the numbers of one pair say, counted."""
    lines = []
    for side in SIDES:
        here = pair[pair["side"] == side]
        n = _distinct(last_entry(here)["i"])
        counts = [
            f"{entry['above_chance'].sum()} of {len(entry)} modules for {name}"
            for name, entry in (("φ(1,1)", first_entry(here)), (f"φ(n,n), n = {n}", last_entry(here)))
        ]
        expected = 0.025 * here["module"].nunique()
        lines.append(
            f"- {side.capitalize()} singular vectors: above the random interval in {' and '.join(counts)}; "
            f"chance alone gives {expected:.1f} on average."
        )
    return lines
