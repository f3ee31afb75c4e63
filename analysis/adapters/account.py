"""The account of an adapter that was computed: what is kept of each weight type, and for how many parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from analysis.adapters.ranks import Spectrum
from analysis.kit.safe import make_safe
from analysis.kit.tables import markdown
from lora.stored import Target
from lora.targets import WHOLE

FACTORS, MATRICES = "parameters before", "parameters of W"
NAMED = 6  # names in a line before they are only counted; the files beside have all
READING = """\
Energy is the squared Frobenius norm of ΔW, and what is kept of it is that of the best approximation of this rank.
Ranks are the lowest and the highest over the layers; 0: such modules have no adapter."""


def type_of(target: Target) -> str:
    """The weight type, or for a module that has none the end of its name."""
    return target.module.rpartition(".")[2] if target.weight_type == WHOLE else target.weight_type


def modules(
    targets: Sequence[Target], spectra: Sequence[Spectrum], ranks: Sequence[int], before: Sequence[int]
) -> pd.DataFrame:
    """A row a module: where it is, its shape, the rank that it had and that it has, ||ΔW||_F, the share of its energy
    that is kept, and the parameters before and now."""
    rows = []
    for target, spectrum, rank, numbers in zip(targets, spectra, ranks, before, strict=True):
        d, k = target.shape
        rows.append(
            {
                "module": target.module, "layer": "" if target.layer is None else target.layer,
                "weight_type": type_of(target), "d": d, "k": k, "rank_before": target.r, "rank": rank,
                "norm": spectrum.energy**0.5, "energy": spectrum.share(rank),
                "parameters_before": numbers, "parameters": rank * spectrum.cost,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def by_type(table: pd.DataFrame, before: str) -> pd.DataFrame:
    """The account of `modules` by weight type, and of all together. `before`: what the column of parameters before is
    called, FACTORS or MATRICES; of whole matrices the rank before is left out."""
    groups = [*table.groupby("weight_type", sort=False), ("all", table)]
    return pd.DataFrame([_row(str(name), own, before) for name, own in groups])


def _row(name: str, own: pd.DataFrame, before: str) -> dict[str, Any]:
    energy = own["norm"] ** 2
    kept = (energy * own["energy"]).sum() / energy.sum() if energy.sum() else 1.0
    ranks = {"rank before": _span(own["rank_before"])} if before == FACTORS else {}
    return {
        "weight type": name,
        "modules": str(len(own)),
        **ranks,
        "rank": _span(own["rank"]),
        "energy kept": f"{kept:.4f}",
        before: f"{own['parameters_before'].sum():,}",
        "parameters": f"{own['parameters'].sum():,}",
    }


def _span(ranks: pd.Series[int]) -> str:
    low, high = ranks.min(), ranks.max()
    return str(low) if low == high else f"{low} to {high}"


def some(names: Sequence[str]) -> str:
    """How many, and the first of them."""
    return f"{len(names)} ({', '.join(names[:NAMED])}{', …' if len(names) > NAMED else ''})"


def dropped(table: pd.DataFrame) -> list[str]:
    """A line on the modules of `modules` that have no adapter."""
    gone = table["module"][table["rank"] == 0].tolist()
    return [f"without an adapter, for their share is too small: {some(gone)}"] * bool(gone)


def size(path: Path) -> str:
    """A file's bytes, for a reader."""
    return f"{path.stat().st_size:,} bytes"


def publish(
    title: str, table: pd.DataFrame, before: str, lines: Sequence[str], more: Mapping[str, pd.DataFrame], out: Path
) -> list[Path]:
    """Print the account and write it into the folder of the adapter: `title`.md, `title`.csv with a row a module, and
    the tables of `more`; returns the paths, the page first. `lines`: what else there is to say, an item each."""
    shown = by_type(table, before)
    print(tabulate(shown.to_dict("list"), headers="keys", disable_numparse=True))
    print(*(f"- {line}" for line in lines), sep="\n")
    page = [f"# {title}", "", markdown(shown), "", *(f"- {line}." for line in lines), "", READING, ""]
    path = out / f"{title}.md"
    path.write_text("\n".join(page), encoding="utf-8")
    paths = [path]
    for name, own in {title: table, **more}.items():
        paths.append(out / f"{name}.csv")
        own.to_csv(paths[-1], index=False, float_format="%.6g")
    make_safe(paths)
    return paths
