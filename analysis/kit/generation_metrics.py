"""How the metrics of generated text are shown, and what a study of text generation is set beside in the paper."""

from collections.abc import Mapping
from typing import NamedTuple

VALIDATION_LOSS = "val_loss"  # the loss on validation data, beside those of the test split


class Metric(NamedTuple):
    """A metric's title, the factor from the unit it is stored in to the one it is shown in, decimals, whether lower is
    better, and its column in the paper's table, whose unit is the one shown ("": not there)."""

    title: str
    scale: float = 1
    digits: int = 2
    lower: bool = False
    column: str = ""

    @property
    def heading(self) -> str:
        """The title, with an arrow where lower is better."""
        return f"{self.title} ↓" if self.lower else self.title


class Study(NamedTuple):
    """A table of the paper: a title, the task it is on, its file in analysis/paper, its metrics by the names they are
    stored under, and in what its numbers are another thing than ours."""

    title: str
    paper_task: str
    paper: str
    metrics: Mapping[str, Metric]
    note: str


BLEU = Metric("BLEU", 100, 1, column="bleu")
NIST = Metric("NIST", column="nist")
METEOR = Metric("stem METEOR", 100, 1, column="meteor")
METEOR_FRACTION = Metric("stem METEOR", digits=3, column="meteor")
ROUGE_L = Metric("ROUGE-L", 100, 1, column="rouge_l")
CIDER = Metric("CIDEr", column="cider")
TER = Metric("TER", digits=3, lower=True, column="ter")
LOSS = Metric("test loss", digits=3, lower=True)
METEOR_NOTE = """\
Stem METEOR matches words and stems but no synonyms, which would take WordNet, and has other weights than the paper's
METEOR 1.5: it compares methods here, and is not to be compared with the paper's numbers."""
_OTHERS = {"loss": LOSS, "bleu": BLEU, "nist": NIST, "cider": CIDER, "ter": TER, "meteor_stem": METEOR}


def chosen(known: Mapping[str, Metric], found: list[str]) -> dict[str, Metric]:
    """The metrics to show of those found in the runs: known ones first, in their order, then others, the loss last."""
    names = [name for name in known if name in found]
    names += [name for name in found if name not in {*known, VALIDATION_LOSS, "loss"}]
    names += [name for name in found if name == "loss" and name not in known]
    return {name: known[name] if name in known else _other(name) for name in names}


def _other(name: str) -> Metric:
    """Metrics that no table of the paper has are fractions, shown in percent; one of a group of inputs (bleu_seen) is
    shown as that of all is."""
    base, _, group = name.partition("_")
    if name in _OTHERS:
        return _OTHERS[name]._replace(column="")
    if base in _OTHERS:
        return _OTHERS[base]._replace(title=f"{_OTHERS[base].title} {group}", column="")
    return Metric(name, 100, 1)
