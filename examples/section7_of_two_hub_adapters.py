"""Section 7 of the paper for two adapters of the hub: how many directions do they share, and more than by chance?

python examples/section7_of_two_hub_adapters.py FIRST SECOND BASE [OUT]

FIRST and SECOND are peft adapters of one base model BASE: hub ids or folders. Weights are read tensor by tensor; no
model is run. OUT has the tables and figures of `lora-lab compare`, and top_directions.png, which this example draws.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from analysis.compare.__main__ import compare, parse


def main(first: str, second: str, base: str, out: Path = Path("section7")) -> None:
    """Compare two adapters of `base`; tables and figures go into `out`."""
    compare(parse([first, second, "--base", base, "--out", str(out)]))
    pairs = pd.read_csv(out / "pairs.csv")  # phi(i, j) of every shared module, beside random directions

    top = pairs[(pairs["i"] == 1) & (pairs["j"] == 1) & (pairs["side"] == "right")]  # inputs, as the paper's A
    table = top.groupby("weight_type").agg(
        modules=("phi", "size"), phi=("phi", "median"), chance=("chance", "median"), above=("above_chance", "mean")
    )
    print("\nphi(1, 1): the share of one adapter's first direction that is the other's first direction")
    print(table.to_string(float_format="{:.3f}".format))

    figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
    for name, rows in top.groupby("weight_type"):
        axes.plot(range(len(rows)), rows["phi"], marker="o", label=name)
    axes.plot(
        range(int(table["modules"].max())), [top["chance"].median()] * int(table["modules"].max()), "k:", label="chance"
    )
    axes.set(xlabel="layer", ylabel="phi(1, 1)", ylim=(0, 1), title=f"{Path(first).name} and {Path(second).name}")
    axes.legend(title="weight")
    figure.savefig(out / "top_directions.png", dpi=150)
    print(f"\n{out / 'compare.md'}, {out / 'top_directions.png'}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(str(__doc__))
    main(*sys.argv[1:4], *map(Path, sys.argv[4:5]))
