"""The claims as the report shows them: judged anew, so that they are of the same tables as the rest of the page."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from analysis.claims import words
from analysis.claims.board import CLAIMS, TOPICS
from analysis.claims.engine import RULE, Claim, Judged, Verdict, judge
from analysis.claims.report import adds
from analysis.claims.sources import read
from analysis.report import forest
from lora.config import InputError

CLASSES = {
    Verdict.HOLDS: "holds",
    Verdict.FAILS: "fails",
    Verdict.EQUAL: "equal",
    Verdict.UNDECIDED: "open",
    Verdict.NO_RUNS: "none",
}
NO_MODEL = ("all", "one")  # how the places begin of cases that are of no one model
NOTES = {
    "too few to count": "Too few to count: a case with fewer replicates than the claim asks for is shown, and is not "
    "part of the estimate.",
    "do not count": "Do not count: a run that predicts one class for about every item has not learnt the task. What a "
    "setting is worth cannot be read off it, so that it is in no mean; how many there are is said, for a setting that "
    "often ends so has that against it.",
}


class Answer(NamedTuple):
    """A question, the claim that answers it, and the study to look at."""

    question: str
    claim: str
    study: str


ANSWERS = (
    Answer("Which rank?", "small_rank", "rank_ablation"),
    Answer("Which weights?", "qv_for_the_budget", "weight_types"),
    Answer("Which method?", "as_good_as_full", "compare_methods"),
    Answer("Which learning rate?", "ten_times_the_rate", "compare_methods"),
    Answer("Which alpha?", "alpha_spread_largest", "alpha"),
    Answer("What does training cost?", "third_of_memory_large", "memory"),
    Answer("What does using it cost?", "merged_is_free", "latency"),
    Answer("What is the update?", "already_in_w", "subspace"),
    Answer("What is forgotten?", "forgets_less", "forgetting"),
)


class Row(NamedTuple):
    """A case: where, of which study, and the estimate with its interval and n."""

    where: str
    study: str
    estimate: str


@dataclass(frozen=True)
class Item:
    """A claim with its verdict; kind: the verdict as one word; evidence is empty without runs, and so are estimate and
    picture; error says what it holds."""

    number: int
    claim: Claim
    verdict: str
    kind: str
    topic: str
    estimate: str
    evidence: str
    error: str
    command: str
    rows: list[Row]
    run_ids: list[str]
    picture: Markup

    @property
    def models(self) -> list[str]:
        """The models of its cases, in order."""
        named = (re.split("[ ,]", row.where)[0] for row in self.rows)
        return [name for name in dict.fromkeys(named) if name not in NO_MODEL]

    @property
    def notes(self) -> list[str]:
        """What must be known of cases that are not part of the estimate, or of runs that are not."""
        return [note for words, note in NOTES.items() if any(words in row.estimate for row in self.rows)]

    @property
    def studies(self) -> list[str]:
        """The studies of its cases, in order."""
        return list(dict.fromkeys(row.study for row in self.rows))


@dataclass(frozen=True)
class Scoreboard:
    """All claims, how many have each verdict, and how a verdict comes about; problem: why there are none."""

    items: list[Item] = field(default_factory=list)
    problem: str = ""
    rule: str = RULE

    @property
    def counts(self) -> list[tuple[str, str, int]]:
        """(verdict, its one word, number of claims)."""
        kinds = [item.kind for item in self.items]
        return [(str(verdict), kind, kinds.count(kind)) for verdict, kind in CLASSES.items()]

    @property
    def models(self) -> list[str]:
        """All models that claims are judged on, by name."""
        return sorted({model for item in self.items for model in item.models})

    @property
    def topics(self) -> list[str]:
        """What claims are about, in order."""
        return list(dict.fromkeys(item.topic for item in self.items))

    @property
    def answers(self) -> list[tuple[Answer, Item]]:
        """What the page answers first."""
        items = {item.claim.key: item for item in self.items}
        return [(answer, items[answer.claim]) for answer in ANSWERS if items]


def make(results: Path) -> Scoreboard:
    """Judges all claims on the studies of results/<preset>."""
    try:
        judged = judge(CLAIMS, read(results, dict.fromkeys(name for claim in CLAIMS for name in claim.files)))
    except InputError as error:
        return Scoreboard(problem=str(error))
    return Scoreboard([_item(number, found, results) for number, found in enumerate(judged, start=1)])


def _item(number: int, found: Judged, results: Path) -> Item:
    rows = [Row(case.place, case.study, words.of_case(found.claim, case)) for case in found.cases]
    topic = next(topic for topic, claims in TOPICS.items() if found.claim in claims)
    estimate = words.estimate(found.claim, found.estimate) if found.estimate else ""
    return Item(
        number, found.claim, str(found.verdict), CLASSES[found.verdict], topic, estimate, words.evidence(found),
        words.error(found), adds(found, results), rows, words.runs(found), forest.draw(found),
    )  # fmt: skip
