"""What outputs have in common with their references: right or wrong, edits, n-grams, captions' metrics, ROUGE.

BLEU and NIST are as the E2E challenge measures them: `measure_scores.py -p` of tuetschek/e2e-metrics (pymteval).

ROUGE-L, CIDEr and METEOR are of words without punctuation, as coco-caption has them, whence the E2E script takes them.
ROUGE-L and CIDEr are coco-caption's own code (pycocoevalcap). What is not the script's is the tokenizer, `words.coco`:
of E2E's test references, the first against the others of its input, ROUGE-L is 0.6455 for the script's 0.6457, and
CIDEr 1.856 for 1.858.

ROUGE of summaries and headlines (paper, Table 4) is rouge-score's F1 with Porter stems, the mean over outputs, of
lower-cased letters and digits alone. Of several references the best counts.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, reduce
from itertools import zip_longest
from operator import or_
from statistics import fmean
from typing import Any

from nltk.translate.meteor_score import meteor_score
from nltk.util import everygrams
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.ter import TER

from experiments.metrics.text_metrics import words
from lora.errors import library

Rows = Sequence[Mapping[str, Any]]
COCO = {"cider": "cider.cider", "rouge_l": "rouge.rouge"}
_NO_MATCH = 1e-15  # what pymteval counts where no n-gram of an order matches
_NIST_ORDER = 5
_NIST_BETA = math.log(2) / math.log(1.5) ** 2  # a text of two thirds of the references' length scores half


def accuracy(outputs: Sequence[str], rows: Rows) -> float:
    """The share of outputs, in [0, 1], that are one of their references, white space around both aside."""
    return fmean(
        output.strip() in [text.strip() for text in row["references"]]
        for output, row in zip(outputs, rows, strict=True)
    )


def ter(outputs: Sequence[str], rows: Rows) -> float:
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
    result = TER().sentence_score(_spaced(words.webnlg, output), [_spaced(words.webnlg, text) for text in references])
    return result.num_edits, result.ref_length


def bleu(outputs: Sequence[str], rows: Rows) -> float:
    """Corpus BLEU-4 in [0, 1] against all references, case-insensitive, in words of mteval-v13a (sacrebleu).

    The same as the E2E script's (paper, Table 3), but for outputs of fewer than 4 words, whose missing n-grams the
    script counts as negative. Of WebNLG and DART (Tables 13 and 14) the authors measure multi-bleu-detok.perl on
    lower-cased text cut at every character that is no letter or digit, and on the first 6 references: words such as
    `family-friendly` and `84.5` are three there and one here.
    """
    metric = BLEU(lowercase=True, tokenize="13a", smooth_method="floor", smooth_value=_NO_MATCH, force=True)
    columns = list(zip_longest(*(row["references"] for row in rows)))  # None where a row has fewer references
    return metric.corpus_score(outputs, columns).score / 100


def nist(outputs: Sequence[str], rows: Rows) -> float:
    """NIST-5, 0 and up, against all references, case-insensitive, in words of mteval-v13a (Doddington, 2002).

    The E2E script's (paper, Table 3): an n-gram's information is its own over all references, it may match as often as
    in the reference that has it most, and the length is compared with the references' mean. nltk's corpus_nist takes
    one best reference instead. An order that no output is long enough for adds 0 (in the script: an error).
    """
    written = [words.mteval(output) for output in outputs]
    references = [[words.mteval(text) for text in row["references"]] for row in rows]
    counts = Counter(ngram for texts in references for text in texts for ngram in _ngrams(text))
    counts[()] = sum(len(text) for texts in references for text in texts)
    information = [0.0] * (_NIST_ORDER + 1)
    for output, texts in zip(written, references, strict=True):
        matched = Counter(_ngrams(output)) & reduce(or_, (Counter(_ngrams(text)) for text in texts))
        for ngram, times in matched.items():
            information[len(ngram)] += times * math.log2(counts[ngram[:-1]] / counts[ngram])
    totals = Counter(len(ngram) for output in written for ngram in _ngrams(output))
    length, expected = totals[1], sum(fmean(len(text) for text in texts) for texts in references)
    if not length or not expected:
        return 0.0
    penalty = math.exp(-_NIST_BETA * math.log(min(length / expected, 1)) ** 2)
    return penalty * sum(information[order] / total for order, total in totals.items())


def _ngrams(text: list[str]) -> list[tuple[str, ...]]:
    return list(everygrams(text, max_len=_NIST_ORDER))


def captions(metric: str) -> Any:
    """coco-caption's module of a metric. Raises InputError if pycocoevalcap is not installed."""
    return library(f"pycocoevalcap.{COCO[metric]}", metric)


def rouge_l(outputs: Sequence[str], rows: Rows) -> float:
    """coco-caption's ROUGE-L in [0, 1] (paper, Table 3): F with beta = 1.2, the mean over outputs.

    Precision and recall are each the best over the references, perhaps of two. Summaries have `rouge_lf` instead.
    """
    return float(captions("rouge_l").Rouge().compute_score(*_captions(outputs, rows))[0])


def cider(outputs: Sequence[str], rows: Rows) -> float:
    """coco-caption's CIDEr, from 0 to 10 (paper, Table 3): the mean over outputs and n-grams of 1 to 4 words.

    An n-gram weighs the less, the more rows have it in a reference; one that all rows have weighs nothing. So a single
    row scores 0, whatever is written, and a group's CIDEr is not comparable with that of all rows.
    """
    references, written = _captions(outputs, rows)
    if not any(text for texts in references.values() for text in texts):
        return 0.0  # coco-caption stops where there is no n-gram at all
    return float(captions("cider").Cider().compute_score(references, written)[0])


def _captions(outputs: Sequence[str], rows: Rows) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """References and outputs as coco-caption takes them: words between single spaces, by a row's number."""
    references = {index: [_spaced(words.coco, text) for text in row["references"]] for index, row in enumerate(rows)}
    return references, {index: [_spaced(words.coco, output)] for index, output in enumerate(outputs)}


def _spaced(cut: Callable[[str], list[str]], text: str) -> str:
    return " ".join(cut(text))


class _NoSynonyms:
    """In WordNet's place."""

    def synsets(self, word: str) -> list[Any]:
        return []


def meteor_stem(outputs: Sequence[str], rows: Rows) -> float:
    """METEOR in [0, 1] of equal words and equal Porter stems, without WordNet's synonyms, hence its own name.

    nltk's, with the parameters of Lavie and Agarwal (2007): alpha = 0.9, beta = 3, gamma = 0.5. The mean over outputs,
    each with its best reference. Not comparable, number for number, with the paper's METEOR (version 1.5: synonyms,
    paraphrases, function words, other parameters, and statistics of the corpus): compare methods by it.
    """
    return fmean(
        meteor_score([words.coco(text) for text in row["references"]], words.coco(output), wordnet=_NoSynonyms())
        for output, row in zip(outputs, rows, strict=True)
    )


def rouge_1(outputs: Sequence[str], rows: Rows) -> float:
    """F1 of words, in [0, 1] (Lin, 2004)."""
    return _f1("rouge1", outputs, rows)


def rouge_2(outputs: Sequence[str], rows: Rows) -> float:
    """F1 of pairs of words, in [0, 1] (Lin, 2004)."""
    return _f1("rouge2", outputs, rows)


def rouge_lf(outputs: Sequence[str], rows: Rows) -> float:
    """F1 of the longest common subsequence of the whole texts, in [0, 1] (Lin, 2004): summarisation's ROUGE-L.

    Not `rouge_l`, which is coco-caption's. For texts on one line the same as rougeLsum.
    """
    return _f1("rougeL", outputs, rows)


def _f1(kind: str, outputs: Sequence[str], rows: Rows) -> float:
    scorer = RougeScorer([kind], use_stemmer=True)
    return fmean(
        scorer.score_multi(row["references"], output)[kind].fmeasure for output, row in zip(outputs, rows, strict=True)
    )
