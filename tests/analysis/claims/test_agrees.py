"""Tables and the scoreboard of results/desk: of the same two settings they have one difference, and no verdict is
against what a table calls established."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from analysis.claims.report import COLUMNS
from analysis.kit.compare import REFERENCES, reference
from analysis.kit.sentences import LEVEL

DESK = Path(__file__).parents[3] / "results" / "desk"
SIDE = ["label", "settings"]
TIED = ["model", "task", "metric"]
SIZES = ["train_examples"]  # by which the table of a study compares, beside TIED


class Compared(NamedTuple):
    """What a table says of two settings: a row's less its reference's."""

    place: str
    settings: frozenset[tuple[str, str]]
    difference: float
    interval: float
    p: float


def by_reference(table: pd.DataFrame) -> Iterator[Compared]:
    """The comparisons of a table.csv with the columns full_difference and lora_difference."""
    for place, rows in table.groupby([*TIED, *(name for name in SIZES if name in table)], sort=False):
        for name in REFERENCES:
            base = reference(rows, name)
            if base and f"{name}_p_holm" in rows:
                fields = [*SIDE, *(f"{name}_{field}" for field in ("difference", "interval", "p_holm"))]
                for *own, difference, interval, p in rows[fields].itertuples(index=False, name=None):
                    yield Compared(" ".join(map(str, place)), frozenset({tuple(own), base}), difference, interval, p)


def listed(table: pd.DataFrame, cells: pd.DataFrame) -> Iterator[Compared]:
    """The comparisons of a differences.csv, a row each."""
    for row in table.to_dict("records"):
        there = cells[(cells[TIED] == [row[name] for name in TIED]).all(axis=1)]
        base = reference(there, row["reference"])
        pair = frozenset({(row["label"], row["settings"]), base}) if base else frozenset()
        yield Compared(" ".join(row[name] for name in TIED), pair, row["difference"], row["interval"], row["p_holm"])


def tables(study: Path) -> Iterator[Compared]:
    kinds = dict.fromkeys(SIDE, str)
    paths = [study / name for name in ("table.csv", "differences.csv") if (study / name).exists()]
    found = [pd.read_csv(path, dtype=kinds, na_filter=True) for path in paths]
    if found and {*SIDE, *TIED} <= set(found[0]):
        found = [frame.fillna(dict.fromkeys(SIDE, "")) for frame in found if set(SIDE) <= set(frame)]
        yield from by_reference(found[0])
        for more in found[1:]:
            yield from listed(more, found[0])


def cases() -> Iterator[tuple[dict[str, object], Compared]]:
    """Each case of the scoreboard that is of two settings, with what the study's table says of these two."""
    board = pd.read_csv(DESK / "claims.csv")
    scores = board[board["run_ids"].notna() & board["unit"].isin(["points", "nats"])]
    for study, rows in scores.groupby("study"):
        folder = DESK / str(study)
        if not (folder / "runs.csv").exists():
            continue
        said = {(one.place, one.settings): one for one in tables(folder) if one.difference == one.difference}
        runs = pd.read_csv(folder / "runs.csv", dtype=str)
        if not set(SIDE) <= set(runs):
            continue
        about = runs.fillna({"settings": ""}).drop_duplicates("run_id").set_index("run_id")
        for row in rows.to_dict("records"):
            own = about.reindex(str(row["run_ids"]).split()).dropna(subset=["label"])
            pair = frozenset(own[SIDE].itertuples(index=False, name=None))
            metric = "loss" if row["unit"] == "nats" else "accuracy"
            place = " ".join([*map(str, own[["model", "task"]].iloc[0]), metric]) if len(own) else ""
            sizes = [f" {own[name].iloc[0]}" for name in SIZES if name in own and own[name].nunique() == 1]
            for where in (place, place + "".join(sizes)):
                if len(pair) == 2 and (where, pair) in said:
                    yield row, said[where, pair]
                    break


FOUND = list(cases())


def test_there_are_comparisons_of_both() -> None:
    assert {"claim", "study", "run_ids", "case_estimate", "claimed_low"} <= set(COLUMNS)
    assert len(FOUND) >= 15
    assert sum(table.p < LEVEL for _, table in FOUND) >= 3


@pytest.mark.parametrize(("row", "table"), FOUND, ids=[f"{row['claim']} {table.place}" for row, table in FOUND])
def test_a_case_is_the_difference_of_its_table(row: dict[str, float], table: Compared) -> None:
    assert abs(row["case_estimate"]) == pytest.approx(abs(table.difference), rel=1e-4, abs=2e-6)


@pytest.mark.parametrize(("row", "table"), FOUND, ids=[f"{row['claim']} {table.place}" for row, table in FOUND])
def test_no_verdict_is_against_what_a_table_calls_established(row: dict[str, float], table: Compared) -> None:
    if not table.p < LEVEL:
        return
    way = np.sign(row["case_estimate"] * table.difference)
    low, high = sorted(way * (table.difference + side * table.interval) for side in (-1, 1))
    inside = row["claimed_low"] <= low and high <= row["claimed_high"]
    outside = high < row["claimed_low"] or low > row["claimed_high"]
    against = {"holds": outside, "does not hold here": inside, "equal within the margin": low * high > 0 and outside}
    page = (DESK / "claims.md").read_text(encoding="utf-8")
    told = f"the opposite on {row['case']}" in page  # where the tasks together say otherwise
    assert not against.get(str(row["verdict"]), False) or told
