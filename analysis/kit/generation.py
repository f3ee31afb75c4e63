"""Tables of generated text: a column a metric, the paper's rows below ours, differences in every metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from analysis.kit import cells, method_tables, metrics, naming, pages, tuning
from analysis.kit.compare import METHOD, References, full_and_lora, minus_texts
from analysis.kit.data import Data
from analysis.kit.metrics import VALIDATION_LOSS
from analysis.kit.sentences import listed, told
from analysis.maths import statistics

TASK = ["model", "task"]
CELL = [*TASK, *METHOD]
COSTS = ["train_seconds", "tokens_per_second", "peak_memory_bytes"]
TEST = """\
p is of the paired t-test, by Holm's method corrected for all that is compared with one reference in one metric, but not
for the number of metrics, which rate the same texts; `*` marks p < 0.05; differences all alike have no p. The test loss
decides, as it does on the scoreboard (docs/judging.md): it scatters least between seeds. What metrics say of the texts
that were written stands beside it."""
METEOR = """\
Stem METEOR matches words and stems but no synonyms, which would take WordNet, and has other weights than the paper's
METEOR 1.5: it compares methods here, and is not to be compared with the paper's numbers."""


def measured(final: pd.DataFrame) -> pd.DataFrame:
    """The rows of the test split, and the validation loss as a metric of its own, VALIDATION_LOSS."""
    validation = final[(final["split"] == "validation") & (final["metric"] == "loss")]
    return pd.concat([final[final["split"] == "test"], validation.assign(metric=VALIDATION_LOSS)], ignore_index=True)


@dataclass(frozen=True, eq=False)
class Generated:
    """Tables of generated text.

    paper: gives the paper's rows, of model, task, label or others of the columns of `table`, and its metrics under our
    names, in the unit stored. first: the metrics that come first, in their order; also: further columns of the runs.
    """

    paper: Callable[[], pd.DataFrame]
    first: Sequence[str]
    references: References = full_and_lora
    also: Sequence[str] = ()

    def long(self, data: Data) -> pd.DataFrame:
        """A row for each method and metric, of `kit.method_tables.tabulate`, with `also`. The test loss comes first;
        that on validation data is there if it is one of `first`."""
        found = data.scores["metric"].unique()
        others = [name for name in found if name not in {"loss", *self.first, VALIDATION_LOSS}]
        order = {name: place for place, name in enumerate(["loss", *self.first, *others])}
        scores = data.scores[data.scores["metric"].isin(order)]
        table = method_tables.tabulate(scores, (), self.references, dict.fromkeys(self.also, "first"))
        return table.sort_values("metric", key=lambda names: names.map(order), kind="stable", ignore_index=True)

    def theirs(self, data: Data) -> pd.DataFrame:
        """The paper's rows with those metrics that the runs have; none where they have none of them."""
        rows, found = self.paper(), list(data.once(self.long)["metric"].unique())
        known = [name for name in found if name in rows]
        return rows[[name for name in rows if name in known or name not in self.first]].head(len(rows) if known else 0)

    def table(self, data: Data) -> pd.DataFrame:
        """A row for each method: n seeds, parameters, share (of what full fine-tuning trains), lr, for each metric its
        mean and <metric>_interval, as stored, costs, and the tuning, as `kit.tuning.outcomes` has it. The paper's rows
        below, told apart by `source`."""
        first = data.scores.groupby(CELL, sort=False)
        ours = first.agg(n=("seed", "nunique"), trainable_params=("trainable_params", "max")).reset_index()
        ours = ours.assign(share=share(ours)).merge(first["lr"].first().reset_index(), on=CELL)
        for name, rows in data.once(self.long).groupby("metric", sort=False):
            found = rows[[*CELL, "mean", "interval"]].set_axis([*CELL, name, f"{name}_interval"], axis=1)
            ours = ours.merge(found, on=CELL, how="left")
        ours = ours.merge(first[COSTS].mean().reset_index(), on=CELL)
        if len(data.rates):
            ours = ours.merge(tuning.outcomes(data.rates).drop(columns="metric"), on=CELL, how="left")
        ours = ours.merge(first[list(self.also)].first().reset_index(), on=CELL) if self.also else ours
        parts = [ours.assign(source="ours"), self.theirs(data).assign(source="paper")]
        table = pd.concat([part for part in parts if len(part)], ignore_index=True)
        table.insert(0, "source", table.pop("source"))
        return table.astype({"n": "Int64", "trainable_params": "Int64"})

    def differences(self, data: Data) -> pd.DataFrame:
        """Every method minus each reference in every metric: a row for each model, task, reference (its name), metric
        and method, with the fields of `maths.statistics.against`, in the unit stored.

        p_holm is corrected for the methods compared with one reference in one metric.
        """
        fields = [*statistics.Paired._fields, "p_holm"]
        parts = [
            rows.loc[
                rows[f"{name}_pairs"].notna(), [*TASK, "metric", *METHOD, *(f"{name}_{field}" for field in fields)]
            ]
            .rename(columns={f"{name}_{field}": field for field in fields})
            .assign(reference=name)
            for _, rows in data.once(self.long).groupby(TASK, sort=False)
            for name in self.references(rows)
        ]
        columns = [*TASK, "reference", "metric", *METHOD, *fields]
        return pd.concat(parts)[columns].astype({"pairs": int}) if parts else pd.DataFrame(columns=columns)

    def ours(self, data: Data) -> pd.DataFrame:
        """Our rows of table.csv."""
        table = data["table.csv"]
        return table[table["source"] == "ours"]

    def quality(self, data: Data, about: Mapping[str, Callable[[pd.DataFrame], Any]]) -> pd.DataFrame:
        """The main table of a task, as text: ours, then the paper's rows; about: columns before the metrics."""
        rows = pd.concat([self.ours(data), self.theirs(data).assign(source="paper")]).astype(
            {"trainable_params": "Int64"}
        )
        columns = {"from": rows["source"] + ", " + rows["model"]} | {head: of(rows) for head, of in about.items()}
        for name in data.once(self.long)["metric"].unique():
            unit = metrics.of(name)
            found = rows[[name, f"{name}_interval", "n"]].set_axis(["mean", "interval", "n"], axis=1)
            texts = zip(cells.mean_texts(found.assign(metric=name)), found["mean"].isna(), strict=True)
            columns[unit.heading] = [None if none else text for text, none in texts]
        return pd.DataFrame(columns)

    def minus(self, data: Data) -> str:
        """A block: for each reference the differences to it, a row a method, a column a metric."""

        def block(name: str, base: tuple[str, str]) -> pages.Block:
            rows = data.once(self.long)
            rows = rows[rows[f"{name}_pairs"].notna()]
            methods, usual = rows.drop_duplicates(METHOD), rows[f"{name}_pairs"].max()
            columns = method_tables.names(methods, sizes=False) | cells.across(
                methods, rows, "metric", METHOD, lambda found: minus_texts(found.assign(n=usual), name), heading
            )
            return pages.under(f"Minus {naming.title(*base)}:", pages.table(lambda _: pd.DataFrame(columns)))

        return pages.render([block(*base) for base in self.references(self.ours(data)).items()], data)

    def verdicts(self, data: Data) -> list[str]:
        """List items: which methods are better than each reference and which worse, by p_holm, metric by metric."""
        lines, every = [], data["differences.csv"]
        for name, base in self.references(self.ours(data)).items():
            rows = every[every["reference"] == name]
            better, worse, neither = found = told(rows, lower=metrics.lower_is_better(rows))
            said = (
                f", {found.tests} tests, corrected metric by metric: better: {_named(better)} – worse: "
                f"{_named(worse)} – not told apart: {len(neither)}."
            )
            none = ": no test, which takes two seeds that both have."
            lines.append(f"- Against {naming.title(*base)}{said if found.tests else none}")
        return lines

    def shown(self, data: Data) -> pd.DataFrame:
        """The rows of `long`. Their column `theirs` is the number of the first model of the paper, of several sizes of
        a method the largest beside our largest."""
        rows, paper = data.once(self.long), self.theirs(data)
        first = paper[paper["model"].isin(paper["model"][:1])].sort_values("trainable_params", ascending=False)
        sizes = zip(first["label"], first.groupby("label").cumcount(), strict=True)
        numbers = dict(zip(sizes, first.to_dict("records"), strict=True))
        places = rows[::-1].groupby([*TASK, "metric", "label"]).cumcount()[::-1]
        keys = zip(rows["label"], places, rows["metric"], strict=True)
        return rows.assign(theirs=[float(numbers.get(key[:2], {}).get(key[2], "nan")) for key in keys])


def heading(metric: str) -> str:
    """The head of a metric's column."""
    return metrics.of(metric).heading


def share(rows: pd.DataFrame) -> pd.Series:
    """trainable_params over those of the method `full` of the same model and task; NaN where it has none."""
    full = rows[rows["label"] == "full"].groupby(TASK)["trainable_params"].max().rename("full").reset_index()
    return rows["trainable_params"] / rows[TASK].merge(full, on=TASK, how="left")["full"].set_axis(rows.index)


def _named(rows: pd.DataFrame) -> str:
    found = [
        f"{naming.title(*key)} in {', '.join(metrics.of(name).title for name in own['metric'])}"
        for key, own in rows.groupby(METHOD, sort=False)
    ]
    return listed(found, "; ")
