"""ROUGE-L, CIDEr and METEOR of words without punctuation, as coco-caption has them, whence the E2E script takes them.

ROUGE-L and CIDEr are coco-caption's own code (pycocoevalcap). What is not the script's is the tokenizer, `words.coco`:
of E2E's test references, the first against the others of its input, ROUGE-L is 0.6455 for the script's 0.6457, and
CIDEr 1.856 for 1.858.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from nltk.translate.meteor_score import meteor_score
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from experiments.metrics.text_metrics import words


def rouge_l(outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
    """coco-caption's ROUGE-L in [0, 1] (paper, Table 3): F with beta = 1.2, the mean over outputs.

    Precision and recall are each the best over the references, perhaps of two. Summaries have `rouge_lf` instead.
    """
    return float(Rouge().compute_score(*_captions(outputs, rows))[0])


def cider(outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
    """coco-caption's CIDEr, from 0 to 10 (paper, Table 3): the mean over outputs and n-grams of 1 to 4 words.

    An n-gram weighs the less, the more rows have it in a reference; one that all rows have weighs nothing. So a single
    row scores 0, whatever is written, and a group's CIDEr is not comparable with that of all rows.
    """
    references, written = _captions(outputs, rows)
    if not any(text for texts in references.values() for text in texts):
        return 0.0  # coco-caption stops where there is no n-gram at all
    return float(Cider().compute_score(references, written)[0])


def _captions(
    outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and outputs as coco-caption takes them: words between single spaces, by a row's number."""
    references = {index: [_joined(text) for text in row["references"]] for index, row in enumerate(rows)}
    return references, {index: [_joined(output)] for index, output in enumerate(outputs)}


def _joined(text: str) -> str:
    return " ".join(words.coco(text))


class _NoSynonyms:
    """In WordNet's place."""

    def synsets(self, word: str) -> list[Any]:
        return []


def meteor_stem(outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
    """METEOR in [0, 1] of equal words and equal Porter stems, without WordNet's synonyms, hence its own name.

    nltk's, with the parameters of Lavie and Agarwal (2007): alpha = 0.9, beta = 3, gamma = 0.5. The mean over outputs,
    each with its best reference. Not comparable, number for number, with the paper's METEOR (version 1.5: synonyms,
    paraphrases, function words, other parameters, and statistics of the corpus): compare methods by it.
    """
    return fmean(
        meteor_score([words.coco(text) for text in row["references"]], words.coco(output), wordnet=_NoSynonyms())
        for output, row in zip(outputs, rows, strict=True)
    )
