"""The claims as the report shows them: judged anew, so that they are of the same tables as the rest of the page."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from analysis.claims import words
from analysis.claims.board import CLAIMS
from analysis.claims.engine import RULE, Claim, Judged, Verdict, judge
from analysis.claims.report import adds
from analysis.claims.sources import read
from lora.config import InputError

CLASSES = {
    Verdict.HOLDS: "holds",
    Verdict.FAILS: "fails",
    Verdict.EQUAL: "equal",
    Verdict.UNDECIDED: "open",
    Verdict.NO_RUNS: "none",
}


class Row(NamedTuple):
    """A case: where, of which study, and the estimate with its interval and n."""

    where: str
    study: str
    estimate: str


@dataclass(frozen=True)
class Item:
    """A claim with its verdict; kind: the verdict as one word; evidence is empty without runs; error says what it
    holds."""

    number: int
    claim: Claim
    verdict: str
    kind: str
    evidence: str
    error: str
    command: str
    rows: list[Row]
    run_ids: list[str]

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


def make(results: Path) -> Scoreboard:
    """Judges all claims on the studies of results/<preset>."""
    try:
        judged = judge(CLAIMS, read(results, dict.fromkeys(name for claim in CLAIMS for name in claim.files)))
    except InputError as error:
        return Scoreboard(problem=str(error))
    return Scoreboard([_item(number, found, results) for number, found in enumerate(judged, start=1)])


def _item(number: int, found: Judged, results: Path) -> Item:
    rows = [Row(case.place, case.study, words.of_case(found.claim, case)) for case in found.cases]
    return Item(
        number, found.claim, str(found.verdict), CLASSES[found.verdict], words.evidence(found), words.error(found),
        adds(found, results), rows, words.runs(found),
    )  # fmt: skip
