"""How far outputs are from a reference: not at all (accuracy), or by so many edits (TER)."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import fmean
from typing import Any

from sacrebleu.metrics.ter import TER

from experiments.metrics.text_metrics import words


def accuracy(outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
    """The share of outputs, in [0, 1], that are one of their references, white space around both aside."""
    return fmean(
        output.strip() in [text.strip() for text in row["references"]]
        for output, row in zip(outputs, rows, strict=True)
    )


def ter(outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
    """Translation edit rate, 0 and up, less is better: edits a word of the references (Snover et al., 2006; sacrebleu).

    The edits to the nearest reference, over all outputs, by the mean length of an output's references. Words are those
    of the paper's authors (`words.webnlg`; Tables 13 and 14), their sum is not: they average over outputs the least
    rate that any reference gives, with pyter's search for shifts in place of tercom's.
    """
    found = [_edits(output, tuple(row["references"])) for output, row in zip(outputs, rows, strict=True)]
    edits, length = sum(edits for edits, _ in found), sum(length for _, length in found)
    return edits / length if length else float(edits > 0)


@lru_cache(2**14)  # slow, some 10 to 100 ms a reference, and each output is in all rows and perhaps in a group
def _edits(output: str, references: tuple[str, ...]) -> tuple[float, float]:
    """Edits to the nearest reference, and the mean length of the references."""
    result = TER().sentence_score(_joined(output), [_joined(text) for text in references])
    return result.num_edits, result.ref_length


def _joined(text: str) -> str:
    return " ".join(words.webnlg(text))
