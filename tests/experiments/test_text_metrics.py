"""Text metrics: by hand, against nltk's and a formula of their own, as the E2E script has them, and on odd texts."""

import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nltk
import pytest
from nltk.translate.bleu_score import corpus_bleu
from nltk.translate.nist_score import corpus_nist

from experiments.metrics import text_metrics
from experiments.metrics.text_metrics import METRICS, words
from lora.config import InputError

WRITTEN = sorted(set(METRICS) - {"logical_form", "execution"})  # what needs nothing but references
# As E2E's: tokenized, several references, unequal numbers of them. The last output is short, the second wrong in part.
REFERENCES = [
    [
        "The Vaults is a pub near Café Adriatic with a 5 star rating . Prices start at £ 30 .",
        "Close to Café Adriatic , The Vaults is a pub with prices of £ 30 and more .",
        "The Vaults pub near Café Adriatic has a 5 star rating .",
    ],
    ["Cotto is a cheap coffee shop in the riverside area .", "In riverside there is a cheap coffee shop , Cotto ."],
    ["Zizzi is not family - friendly ."],
    [
        "The Mill is a pub with high prices in the city centre .",
        "A pub in the city centre , The Mill has high prices .",
    ],
]
OUTPUTS = [
    "The Vaults is a pub near Café Adriatic with prices of £ 30 and a 5 star rating .",
    "Cotto is an Italian coffee shop in the riverside area , with high prices .",
    "Zizzi is family - friendly .",
    "The Mill is a pub in the city centre with high prices .",
]
ROWS = [{"references": texts} for texts in REFERENCES]


def value(name: str, outputs: Sequence[str], *references: Sequence[str]) -> float:
    """One metric of outputs with the references of each."""
    return text_metrics.score([name], [{"references": list(texts)} for texts in references], list(outputs))[name]


def split(text: str) -> list[str]:
    return text.lower().split()


HALF = math.log(2) / math.log(1.5) ** 2


@pytest.mark.parametrize(
    ("name", "output", "references", "expected"),
    [
        # Of 6 words 5 are right, of 5 pairs 4, of 4 triples 3, of 3 fourfolds 2.
        ("bleu", "the cat sat on a mat", ["the cat sat on a rug"], (5 / 6 * 4 / 5 * 3 / 4 * 2 / 3) ** 0.25),
        # All right, but 4 words for 5: exp(1 - 5/4).
        ("bleu", "the cat sat on", ["the cat sat on mats"], math.exp(-1 / 4)),
        # Each half is in a reference; the shorter of two references as near in length counts, so no penalty.
        ("bleu", "a b c d e", ["a b c d", "b c d e f g"], (1 * 1 * 1 * 1) ** 0.25),
        # `the` is right as often as in the reference that has it most: 2 of 7 words. No pair matches.
        ("bleu", "the the the the the the the", ["the cat is on the mat"], pytest.approx(0, abs=1e-7)),
        # One word right of 4, and as in the script 1e-15 of the 3 pairs, 2 triples and 1 fourfold.
        ("bleu", "a x y z", ["a b c d"], (1 / 4 * 1e-15 / 3 * 1e-15 / 2 * 1e-15) ** 0.25),
        # a: 2 of the references' 5 words, b: 1, and b after a: 1 of 2. The output has 2 words, the references 2.5.
        (
            "nist",
            "a b",
            ["a b", "a c c"],
            ((math.log2(5 / 2) + math.log2(5)) / 2 + math.log2(2)) * math.exp(-HALF * math.log(0.8) ** 2),
        ),
        # Two thirds of the references' length: half of log2(3) for each of 2 words, and log2(1) for their pair.
        ("nist", "a b", ["a b c"], math.log2(3) / 2),
        # The longest subsequence is `the cat on mat`: P = 4/5, R = 4/6.
        (
            "rouge_l",
            "the cat lay on mat",
            ["the cat sat on the mat"],
            (1 + 1.2**2) * (4 / 5) * (4 / 6) / (4 / 6 + 1.2**2 * 4 / 5),
        ),
        # Precision is the second reference's, recall the first's.
        ("rouge_l", "a b c", ["a b", "a b c d e f"], 1.0),
        ("rouge_lf", "the cat lay on mat", ["the cat sat on the mat"], 2 * (4 / 5) * (4 / 6) / (4 / 5 + 4 / 6)),
        # P = 2/3 and R = 2/2, or 3/3 and 3/6: the better F1 is 4/5.
        ("rouge_lf", "one two three", ["one two", "one two three four five six"], 4 / 5),
        ("rouge_1", "the cats sitting", ["a cat sits"], 2 / 3),  # by stems
        ("rouge_2", "the cat sat on mats", ["a cat sat on a mat"], 2 * (2 / 4) * (2 / 5) / (2 / 4 + 2 / 5)),
        # Two stems of two, in one chunk: 1 - 0.5 (1/2)^3.
        ("meteor_stem", "dogs running", ["dog runs"], 1 - 0.5 / 8),
        # A synonym is another word: P = R = 1/2, one chunk of one word.
        ("meteor_stem", "big dog", ["large dog", "an enormous cat"], 0.5 * (1 - 0.5)),
        # P = 1, R = 2/3: Fmean = P R / (0.9 P + 0.1 R).
        ("meteor_stem", "red dog", ["red hot dog"], 2 / 3 / (0.9 + 0.1 * 2 / 3) * (1 - 0.5)),
        ("ter", "the cat sat on mat", ["the cat sat on the mat"], 1 / 6),
        ("ter", "on the mat the cat sat", ["the cat sat on the mat"], 1 / 6),  # one shift
        ("ter", "a b c d", ["a b c x", "a y z"], 1 / 3.5),  # least edits, mean length
        ("ter", "a b c d e f", ["x y"], 6 / 2),
        ("ter", "", ["a b", "a b c d"], 2 / 3),
        ("ter", "a bad-tempered cat", ["a bad tempered cat"], 1 / 4),  # the authors cut at hyphens
        ("accuracy", " yes\n", ["no", "yes "], 1.0),
        ("accuracy", "Yes", ["yes"], 0.0),
    ],
)
def test_by_hand(name: str, output: str, references: list[str], expected: float) -> None:
    assert value(name, [output], references) == pytest.approx(expected, abs=1e-12)


def test_corpus_level() -> None:
    # BLEU, NIST and TER are ratios of sums, the others means over outputs.
    outputs, references = ["a b c d", "a b c d e f"], (["a b c d"], ["a b c x e f"])
    assert value("ter", outputs, *references) == pytest.approx(1 / 10)
    assert value("bleu", outputs, *references) == pytest.approx((9 / 10 * 6 / 8 * 3 / 6 * 1 / 4) ** 0.25)
    for name in ("rouge_1", "rouge_l", "rouge_lf", "meteor_stem", "accuracy"):
        each = [value(name, [output], texts) for output, texts in zip(outputs, references, strict=True)]
        assert value(name, outputs, *references) == pytest.approx(sum(each) / 2)
        assert each[0] > each[1]


def test_bleu_is_nltks() -> None:
    # Tokenized text: white space cuts it, so nltk needs no tokenizer of ours.
    expected = corpus_bleu([[split(text) for text in texts] for texts in REFERENCES], [split(text) for text in OUTPUTS])
    assert value("bleu", OUTPUTS, *REFERENCES) == pytest.approx(expected, abs=1e-12)
    assert 0.3 < expected < 0.8


def test_nist_is_nltks_for_single_references() -> None:
    references = [texts[:1] for texts in REFERENCES]
    expected = corpus_nist([[split(text) for text in texts] for texts in references], [split(text) for text in OUTPUTS])
    assert value("nist", OUTPUTS, *references) == pytest.approx(expected, rel=1e-12)
    assert expected > 1


def cider_by_formula(outputs: list[str], references: list[list[str]]) -> float:
    """10 times the mean over rows, references and n of the clipped cosine of tf-idf, less for other lengths."""

    def grams(text: str, n: int) -> Counter[tuple[str, ...]]:
        tokens = [word for word in split(text) if word not in {".", ",", "-"}]
        return Counter(zip(*(tokens[start:] for start in range(n)), strict=False))

    def frequency(gram: tuple[str, ...]) -> int:
        return sum(any(gram in grams(text, len(gram)) for text in texts) for texts in references)

    def weights(text: str, n: int) -> dict[tuple[str, ...], float]:
        return {
            gram: count * math.log(len(references) / max(1, frequency(gram))) for gram, count in grams(text, n).items()
        }

    total = 0.0
    for output, texts in zip(outputs, references, strict=True):
        for text in texts:
            apart = sum(grams(output, 2).values()) - sum(grams(text, 2).values())
            for n in range(1, 5):
                mine, theirs = weights(output, n), weights(text, n)
                dot = sum(min(mine[gram], theirs[gram]) * theirs[gram] for gram in mine.keys() & theirs.keys())
                norm = math.hypot(*mine.values()) * math.hypot(*theirs.values())
                total += math.exp(-(apart**2) / 72) * (dot / norm if norm else 0) / 4 / len(texts)
    return 10 * total / len(outputs)


def test_cider() -> None:
    expected = cider_by_formula(OUTPUTS, REFERENCES)
    assert value("cider", OUTPUTS, *REFERENCES) == pytest.approx(expected, rel=1e-9)
    assert 1 < expected < 9
    # Four rows with nothing in common: the perfect output scores 10, the others 0.
    texts = ["a b c d e", "f g h i j", "k l m n o", "p q r s t"]
    assert value("cider", [texts[0], "x", "y", "z"], *([text] for text in texts)) == pytest.approx(10 / 4)


@pytest.mark.parametrize("name", sorted(set(WRITTEN) - {"accuracy"}))
def test_case_does_not_count(name: str) -> None:
    expected = value(name, OUTPUTS, *REFERENCES)
    assert value(name, [text.upper() for text in OUTPUTS], *REFERENCES) == pytest.approx(expected, abs=1e-12)
    assert value(name, OUTPUTS[::-1], *REFERENCES) != pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("cut", "text", "expected"),
    [
        (words.mteval, "Kid-friendly, £20.50 (ca.) &amp; No 5-star!", "kid-friendly , £20.50 ( ca . ) & no 5 - star !"),
        (words.mteval, "It's 1,000.\nMore", "it's 1,000 . more"),
        # What Stanford's PTBTokenizer -lowerCase gives, less coco-caption's punctuation (its £ is written #).
        (words.coco, "The Eagle's food is £20 - 25. It isn't", "the eagle 's food is £ 20 25 it is n't"),
        (words.coco, 'Near "Café Rouge", 2702.0 m – or so...', "near café rouge 2702.0 m or so"),
        (words.webnlg, "It's 84.5 m, Madrid–Barajas_1", "it ' s 84 . 5 m , madrid – barajas_1"),
    ],
)
def test_words(cut: Any, text: str, expected: str) -> None:
    assert cut(text) == expected.split()


def test_bleu_of_the_authors_words() -> None:
    # On WebNLG and DART the authors cut at every hyphen: 8 words here, where the E2E script has 6.
    output, reference = "a b-c d e f g", "a b-x d e f g"
    assert value("bleu", [output], [reference]) == pytest.approx((5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)
    cut, cut_reference = (" ".join(words.webnlg(text)) for text in (output, reference))
    assert value("bleu", [cut], [cut_reference]) == pytest.approx((7 / 8 * 5 / 7 * 3 / 6 * 1 / 5) ** 0.25)


def test_groups() -> None:
    rows = [{**row, "group": group} for row, group in zip(ROWS, ("seen", "unseen", "seen", "unseen"), strict=True)]
    names = ["bleu", "ter", "cider"]
    scores = text_metrics.score(names, rows, OUTPUTS)
    assert list(scores) == [name + suffix for name in names for suffix in ("", "_seen", "_unseen")]
    for name in names:
        assert scores[name] == value(name, OUTPUTS, *REFERENCES)
        assert scores[f"{name}_seen"] == value(name, OUTPUTS[::2], *REFERENCES[::2])
        assert scores[f"{name}_unseen"] == value(name, OUTPUTS[1::2], *REFERENCES[1::2])
        assert scores[f"{name}_seen"] != scores[f"{name}_unseen"]
    # None, as a data set writes it, is no group.
    plain = [{**row, "group": None} for row in ROWS]
    assert list(text_metrics.score(["bleu"], plain, OUTPUTS)) == ["bleu"]
    assert list(text_metrics.score(["bleu"], [rows[0], *plain[1:]], OUTPUTS)) == ["bleu", "bleu_seen"]


@pytest.mark.parametrize("name", WRITTEN)
@pytest.mark.parametrize(
    ("outputs", "references"),
    [
        (["", "", "", ""], REFERENCES),
        (["...", "!?", "-", "."], REFERENCES),
        (["pub"], [["pub"]]),
        ([""], [["a pub", "the pub , in short"]]),
        (["a pub"], [["", "..."]]),
        (["..."], [["..."]]),
        ([""], [[""]]),
    ],
)
def test_odd_texts_have_a_value(name: str, outputs: list[str], references: list[list[str]]) -> None:
    found = value(name, outputs, *references)
    assert isinstance(found, float) and math.isfinite(found) and found >= 0
    if outputs == [""] * len(references) and any(references[0]) and name != "ter":
        assert found == 0


def test_one_row_has_no_cider() -> None:
    assert value("cider", ["a pub in town"], ["a pub in town"]) == 0


@pytest.mark.parametrize("name", WRITTEN)
def test_perfect_and_wrong(name: str) -> None:
    perfect = {"ter": 0.0, "nist": None, "cider": None, "meteor_stem": None}.get(name, 1.0)
    best = value(name, [texts[0] for texts in REFERENCES], *REFERENCES)
    assert perfect is None or best == pytest.approx(perfect)
    some, none = value(name, OUTPUTS, *REFERENCES), value(name, ["q"] * 4, *REFERENCES)
    assert best < some < none if name == "ter" else best > some >= none
    assert name == "ter" or none == pytest.approx(0, abs=1e-6)


def test_needs_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(nltk, "download", lambda *_, **__: pytest.fail("a download"))
    monkeypatch.setenv("PATH", "")  # no java
    monkeypatch.chdir(tmp_path)
    text_metrics.score(WRITTEN, ROWS, OUTPUTS)
    assert os.listdir(tmp_path) == []


def test_bad_input() -> None:
    with pytest.raises(InputError, match="unknown text metric 'blue'; there are: accuracy, bleu, "):
        text_metrics.check(["bleu", "blue"])
    with pytest.raises(InputError, match="unknown text metric 'blue'"):
        text_metrics.score(["blue"], ROWS, OUTPUTS)
    with pytest.raises(InputError, match="no outputs to score"):
        text_metrics.score(["bleu"], [], [])
    with pytest.raises(ValueError, match="zip"):
        text_metrics.score(["bleu"], ROWS, OUTPUTS[:-1])
    text_metrics.check(METRICS)


def test_a_metric_whose_package_is_missing_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.rouge.rouge", None)
    with pytest.raises(InputError, match=r"rouge_l needs the package pycocoevalcap .*: pip install pycocoevalcap"):
        text_metrics.check(["bleu", "rouge_l"])
    text_metrics.check(["bleu", "cider"])
