"""How metrics are shown: in which unit, with how many decimals, and whether lower is better."""

from typing import NamedTuple

import pandas as pd

VALIDATION_LOSS = "val_loss"  # the loss on validation data, where it stands beside metrics of the test split


class Metric(NamedTuple):
    """A metric's title, the factor from the unit it is stored in to the one it is shown in, decimals, and whether lower
    is better."""

    title: str
    scale: float = 100
    digits: int = 1
    lower: bool = False

    @property
    def heading(self) -> str:
        """The title, with an arrow where lower is better."""
        return f"{self.title} ↓" if self.lower else self.title

    @property
    def axis(self) -> str:
        """The label of an axis, with the unit; a loss says itself of what it is."""
        split = "" if self.lower and self.title[0].islower() else "test "
        return f"{split}{self.title}{' (%)' if self.scale == 100 else ''}"


_KNOWN = {
    "loss": Metric("test loss", 1, 3, True),
    VALIDATION_LOSS: Metric("validation loss", 1, 3, True),
    "bleu": Metric("BLEU"),
    "nist": Metric("NIST", 1, 2),
    "meteor_stem": Metric("stem METEOR"),
    "rouge_l": Metric("ROUGE-L"),
    "cider": Metric("CIDEr", 1, 2),
    "ter": Metric("TER", 1, 3, True),
    "untrained_loss": Metric("loss before training", 1, 3, True),
    "untrained_hidden_error": Metric("hidden error before training", 1, 3, True),
    "forgetting": Metric("rise of the loss on", 1, 3, True),
}


def of(name: str) -> Metric:
    """The metric that is stored under this name. One of a group (bleu_seen) is shown as that of all is; those that are
    not known are fractions, shown in percent."""
    known = next((base for base in _KNOWN if name == base or name.startswith(f"{base}_")), None)
    if known is None:
        return Metric(name)
    group = name[len(known) + 1 :]
    return _KNOWN[known]._replace(title=f"{_KNOWN[known].title} {group}".strip())


def lower_is_better(rows: pd.DataFrame) -> pd.Series:
    """Whether lower is better, by each row's metric."""
    return rows["metric"].map(lambda name: of(str(name)).lower).astype(bool)


def units(rows: pd.DataFrame) -> list[tuple[float, int]]:
    """Scale and decimals of each row's metric; of rows that name none those of percent."""
    found = [of(str(name)) for name in rows.get("metric", [""] * len(rows))]
    return [(metric.scale, metric.digits) for metric in found]
