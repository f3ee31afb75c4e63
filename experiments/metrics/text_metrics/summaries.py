"""ROUGE of summaries and headlines (paper, Table 4): rouge-score's F1 with Porter stems, the mean over outputs.

Lower-cased, letters and digits alone. Of several references the best counts.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from rouge_score.rouge_scorer import RougeScorer


def rouge_1(outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
    """F1 of words, in [0, 1] (Lin, 2004)."""
    return _f1("rouge1", outputs, rows)


def rouge_2(outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
    """F1 of pairs of words, in [0, 1] (Lin, 2004)."""
    return _f1("rouge2", outputs, rows)


def rouge_lf(outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
    """F1 of the longest common subsequence of the whole texts, in [0, 1] (Lin, 2004): summarisation's ROUGE-L.

    Not `rouge_l`, which is coco-caption's. For texts on one line the same as rougeLsum.
    """
    return _f1("rougeL", outputs, rows)


def _f1(kind: str, outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
    scorer = RougeScorer([kind], use_stemmer=True)
    return fmean(
        scorer.score_multi(row["references"], output)[kind].fmeasure for output, row in zip(outputs, rows, strict=True)
    )
