"""BLEU and NIST as the E2E challenge measures them: `measure_scores.py -p` of tuetschek/e2e-metrics (pymteval)."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import zip_longest
from operator import or_
from statistics import fmean
from typing import Any

from nltk.util import everygrams
from sacrebleu.metrics.bleu import BLEU

from experiments.metrics.text_metrics import words

_NO_MATCH = 1e-15  # what pymteval counts where no n-gram of an order matches
_NIST_ORDER = 5
_NIST_BETA = math.log(2) / math.log(1.5) ** 2  # a text of two thirds of the references' length scores half


def bleu(outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
    """Corpus BLEU-4 in [0, 1] against all references, case-insensitive, in words of mteval-v13a (sacrebleu).

    The same as the E2E script's (paper, Table 3), but for outputs of fewer than 4 words, whose missing n-grams the
    script counts as negative. Of WebNLG and DART (Tables 13 and 14) the authors measure multi-bleu-detok.perl on
    lower-cased text cut at every character that is no letter or digit, and on the first 6 references: words such as
    `family-friendly` and `84.5` are three there and one here.
    """
    metric = BLEU(lowercase=True, tokenize="13a", smooth_method="floor", smooth_value=_NO_MATCH, force=True)
    columns = list(zip_longest(*(row["references"] for row in rows)))  # None where a row has fewer references
    return metric.corpus_score(outputs, columns).score / 100


def nist(outputs: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> float:
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
