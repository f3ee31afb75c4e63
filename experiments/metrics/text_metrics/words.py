"""Texts as lower-case words, as the evaluation scripts of the paper's tasks cut them."""

import re

from nltk.tokenize import NLTKWordTokenizer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

_MTEVAL, _TREEBANK = Tokenizer13a(), NLTKWordTokenizer()
# What coco-caption takes out, in the treebank's writing. Dashes are `--` there.
_PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", "‒", "–", "—", "―"}


def mteval(text: str) -> list[str]:
    """The words of NIST's mteval-v13a.pl, as the E2E script's BLEU and NIST have them."""
    return str(_MTEVAL(text.lower())).split()


def coco(text: str) -> list[str]:
    """The treebank's words without punctuation: those of coco-caption, whose tokenizer is a Java program (Stanford's).

    The two cut 99% of E2E's references alike. Stanford's, but not this, keeps the full stop of an abbreviation, and
    cuts contractions such as `isn 't` otherwise.
    """
    # NLTK's expects a single sentence: it cuts off the text's last full stop alone. It knows no pound sign.
    text = re.sub(r"(?<=[^\s.])\.(?=\s)", " .", text.lower()).replace("£", " £ ")
    return [word for word in _TREEBANK.tokenize(text) if word not in _PUNCTUATION]


def webnlg(text: str) -> list[str]:
    """Runs of letters, digits and _, and other characters one by one: the paper's authors on WebNLG and DART."""
    return re.findall(r"\w+|[^\w\s]", text.lower())
