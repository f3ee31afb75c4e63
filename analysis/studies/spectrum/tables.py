"""What the spectrum study's rows come to: ranks, intruders, and overlaps by method, beside chance, with tests."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from analysis.kit import naming, tables
from analysis.kit.measured import JOIN
from analysis.maths import statistics
from analysis.studies.spectrum.names import EPSILON as EPSILON
from analysis.studies.spectrum.names import EPSILONS, FEW, SIDES
from analysis.studies.spectrum.names import PAIR as PAIR
from analysis.weights.comparison import Place
from analysis.weights.update_runs import ABOUT, PLACE

ENDS = {"right": "input", "left": "output"}
RANKS = {
    "stable_rank": "stable rank", "effective_rank": "effective rank", "rank_50": "k for 50% of the energy",
    "rank_90": "90%", "rank_99": "99%",
}  # fmt: skip


def short_names(runs: pd.DataFrame) -> dict[tuple[str, str], str]:
    """(label, settings) -> a name for axes and tables: `r=8`, `r=8, 6 types` where LoRA adapts other weight types than
    most, `full`. In the order in which methods are shown."""
    each = runs.drop_duplicates(["label", "settings"])
    lora = each[each["label"] == "lora"]
    usual = lora["weight_types"].mode().iloc[0] if len(lora) else ""
    others = each[each["label"] != "lora"]
    sizes = lora["weight_types"].fillna("").str.count(r"\+") + 1
    lora = lora.assign(types=sizes, more=lora["weight_types"] != usual).sort_values(["more", "types", "r"])
    names = {}
    for run in lora.to_dict("records"):
        text = run["settings"].replace(f", {run['weight_types']}", "")
        names[run["label"], run["settings"]] = f"{text}, {run['types']} types" if run["more"] else text
    return names | {key: naming.title(*key) for key in naming.keys(others)}


def named(rows: pd.DataFrame, names: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """rows with `method`, the short name, in order of methods within each place."""
    order = {name: place for place, name in enumerate(names.values())}
    found = rows.assign(method=[names[key] for key in naming.keys(rows)])
    places = {key: n for n, key in enumerate(dict.fromkeys(zip(rows["model"], rows["task"], strict=True)))}
    keys = [(places[row[0], row[1]], order[row[2]]) for row in found[[*PLACE, "method"]].itertuples(index=False)]
    return found.iloc[sorted(range(len(found)), key=lambda i: keys[i])].reset_index(drop=True)


def described(rows: pd.DataFrame, each: pd.DataFrame, names: Mapping[tuple[str, str], str]) -> pd.DataFrame:
    """Measured rows with what their run is, of `each`, before the other columns, and `method` as of `named` at the end.
    Where a row is the mean of several runs, of one method, seed is that of the first."""
    numbers = rows.drop(columns=[name for name in (*ABOUT[:2], *ABOUT[3:], "method") if name in rows])
    first = [run_ids.partition(JOIN)[0] for run_ids in numbers["run_id"]]
    about = each.set_index("run_id").loc[first].reset_index()[ABOUT].assign(run_id=numbers["run_id"])
    return named(about.join(numbers.drop(columns="run_id")), names)


def place_name(key: Sequence[Hashable]) -> str:
    """`task (model)` of a place's model and task."""
    place = Place(*map(str, key[:2]))
    return f"{place.task} ({place.model})"


def by_seed(rows: pd.DataFrame, column: str, by: Sequence[str]) -> pd.DataFrame:
    """The mean of a column over layers, a row for each of `by` and seed, as `value`."""
    return rows.groupby([*by, "seed"], sort=False)[column].mean().rename("value").reset_index()


def ranks_summary(ranks: pd.DataFrame) -> pd.DataFrame:
    """A row a place, method and weight type: relative_norm, ||delta_w|| / ||W||, and each of RANKS, means over layers
    and seeds, with <rank>_interval, half of the 95% interval over seeds (NaN for one), and seeds."""
    keys = [*PLACE, "method", "weight_type"]
    rows = ranks.assign(relative_norm=ranks["norm_delta_w"] / ranks["norm_w"])
    table = rows.groupby(keys, sort=False)["seed"].nunique().rename("seeds").reset_index()
    for column in ("relative_norm", *RANKS):
        cells = tables.summarise(by_seed(rows, column, keys), keys)
        table = table.merge(cells.rename(columns={"mean": column, "interval": f"{column}_interval"}).drop(columns="n"))
    return table


def ranks_table(summary: pd.DataFrame) -> pd.DataFrame:
    """The rows of `ranks_summary` for reading."""
    shown = {head: summary[name] for head, name in (*zip(PLACE, PLACE, strict=True), ("method", "method"))}
    shown |= {
        "weights": summary["weight_type"],
        "norm, % of W's": (100 * summary["relative_norm"]).map("{:.3g}".format),
    }
    for column, head in RANKS.items():
        cells = summary[[column, f"{column}_interval", "seeds"]].itertuples(index=False)
        texts = [statistics.mean_text(mean, interval, n, 1) for mean, interval, n in cells]
        shown[head] = pd.Series(texts, index=summary.index)
    return pd.DataFrame(shown)


def rank_tests(ranks: pd.DataFrame) -> pd.DataFrame:
    """The effective rank of q's update less that of v's: for each place and method that has both and more than one
    direction, the fields of `statistics.Paired` over seeds, p_holm, and layers_larger of layers."""
    rows: list[dict[str, Any]] = []
    for key, cells in ranks[ranks["r"] != 1].groupby([*PLACE, "method"], sort=False):
        of = [cells[cells["weight_type"] == weight_type] for weight_type in PAIR]
        if any(part.empty for part in of):
            continue
        seeds, layers = ([part.groupby(by)["effective_rank"].mean() for part in of] for by in ("seed", "layer"))
        difference = layers[0] - layers[1]
        rows.append(
            dict(zip([*PLACE, "method"], key, strict=True))
            | statistics.paired(*seeds)._asdict()
            | {"layers_larger": int((difference > 0).sum()), "layers": int(difference.notna().sum())}
        )
    columns = [*PLACE, "method", *statistics.Paired._fields, "layers_larger", "layers"]
    found = pd.DataFrame(rows, columns=columns)
    return found.assign(p_holm=statistics.holm(found["p"]))


def intruder_counts(ranks: pd.DataFrame) -> pd.DataFrame:
    """PLACE, method, seed, epsilon, and intruders and random: of the TOP singular vectors of W + delta_w on either side
    how many are intruders, and how many with an update of random directions; means over the weight types that all
    methods of the place have, layers and sides."""
    rows = []
    for key, cells in ranks.groupby(PLACE, sort=False):
        shared = set.intersection(*(set(group) for _, group in cells.groupby("method")["weight_type"]))
        of = cells[cells["weight_type"].isin(shared)]
        for epsilon in EPSILONS:
            means = {
                name: of[[f"{name}_{side}_{epsilon}" for side in SIDES]].mean(axis=1)
                for name in ("intruders", "random")
            }
            found = of.assign(**means).groupby(["method", "seed"], sort=False)[["intruders", "random"]].mean()
            rows.append(found.reset_index().assign(model=str(key[0]), task=str(key[1]), epsilon=epsilon))
    return pd.concat(rows, ignore_index=True)


def intruders_table(counts: pd.DataFrame) -> pd.DataFrame:
    """For reading: a row a place and method, for each epsilon the mean, and that of random directions."""
    rows: dict[tuple[Any, ...], dict[str, str]] = {}
    for key, cells in counts.groupby([*PLACE, "method", "epsilon"], sort=False):
        row = rows.setdefault(key[:3], dict(zip(["model", "task", "method"], map(str, key), strict=False)))
        for name in ("intruders", "random"):
            head = f"below {key[3]:g}" + ("" if name == "intruders" else ": random directions")
            mean = tables.summarise(cells.rename(columns={name: "value"}), ["method"]).iloc[0]
            row[head] = statistics.mean_text(mean["mean"], mean["interval"], mean["n"], 1, 2)
    return pd.DataFrame(list(rows.values()))


def intruder_tests(counts: pd.DataFrame) -> pd.DataFrame:
    """Intruders at EPSILON of every method less those of full fine-tuning, of each place: `statistics.against`."""
    found = []
    for key, cells in counts[counts["epsilon"] == EPSILON].groupby(PLACE, sort=False):
        if "full" in set(cells["method"]):
            tests = statistics.against(cells.rename(columns={"intruders": "value"}), ["method"], ["full"])
            found.append(tests.assign(model=str(key[0]), task=str(key[1])))
    columns = [*PLACE, "method", *statistics.Paired._fields, "p_holm"]
    return pd.concat(found, ignore_index=True)[columns] if found else pd.DataFrame(columns=columns)


def overlap_table(overlap: pd.DataFrame) -> pd.DataFrame:
    """For reading, of q and v or all there are: a row a place, side, weight type and method; for each k the mean phi,
    chance, and in how many of the (layer, seed) pairs it is above."""
    keys = [*PLACE, "side", "weight_type", "method"]
    chosen = overlap[overlap["weight_type"].isin(PAIR)] if overlap["weight_type"].isin(PAIR).any() else overlap
    rows = []
    for key, cells in chosen.groupby(keys, sort=False):
        row = dict(zip(["model", "task", "directions", "weights", "method"], map(str, key), strict=True))
        row["directions"] = ENDS[row["directions"]]
        row["method"] = "full, another seed" if row["method"] == "full" else row["method"]
        for k in (1, FEW):
            of = cells[cells["k"] == k]
            if len(of):
                above = int((of["phi"] > of["chance_high"]).sum())
                row[f"phi({k}, {k})"] = f"{of['phi'].mean():.3f}"
                row[f"({k}, {k}) by chance"] = (
                    f"{of['chance_mean'].mean():.3f}, 95% below {of['chance_high'].mean():.3f}"
                )
                row[f"({k}, {k}) above chance"] = f"{above} of {len(of)}"
        rows.append(row)
    return pd.DataFrame(rows)


def angles_table(angles: pd.DataFrame) -> pd.DataFrame:
    """For reading: a row a place, side and method; the smallest principal angle and the share of directions between two
    seeds, medians over sites and pairs, beside chance."""
    rows = []
    for key, cells in angles.groupby([*PLACE, "side", "method", "k"], sort=False):
        row = dict(zip(["model", "task", "directions", "method", "k"], map(str, key), strict=True))
        row["directions"] = ENDS[row["directions"]]
        row["smallest angle"] = f"{cells['smallest'].median():.0f}°"
        row["by chance"] = (
            f"{cells['chance_smallest'].mean():.0f}°, 95% above {cells['chance_smallest_low'].mean():.0f}°"
        )
        row["below chance"] = f"{(cells['smallest'] < cells['chance_smallest_low']).sum()} of {len(cells)}"
        row["mean squared cosine"] = f"{cells['shared'].median():.3f}"
        row["of random ones"] = (
            f"{cells['chance_shared'].mean():.3f}, 95% below {cells['chance_shared_high'].mean():.3f}"
        )
        rows.append(row)
    return pd.DataFrame(rows)


def largest_lora(rows: pd.DataFrame) -> str | None:
    """The method with the largest r among LoRA's on the usual weight types, None without LoRA."""
    lora = rows[(rows["label"] == "lora") & ~rows["method"].str.contains("types")]
    return None if lora.empty else str(lora.sort_values("r", kind="stable")["method"].iloc[-1])
