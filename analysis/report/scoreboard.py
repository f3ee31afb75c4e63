"""The claims as the report shows them: judged anew, so that they are of the same tables as the rest of the page."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from analysis.claims.board import CLAIMS
from analysis.claims.engine import RULE, Case, Claim, Judged, Verdict, judge
from analysis.claims.report import case_verdict, command, estimate, evidence
from analysis.claims.sources import read
from lora.config import InputError

CLASSES = {Verdict.HOLDS: "holds", Verdict.FAILS: "fails", Verdict.UNDECIDED: "open", Verdict.NO_RUNS: "none"}


class Row(NamedTuple):
    """A case: where, of which study, the estimate with its interval and n, and its verdict."""

    where: str
    study: str
    estimate: str
    verdict: str


@dataclass(frozen=True)
class Item:
    """A claim with its verdict; kind: the verdict as one word; evidence and command are markdown."""

    number: int
    claim: Claim
    verdict: str
    kind: str
    evidence: str
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
        judged = [judge(claim, read(results, claim.files)) for claim in CLAIMS]
    except InputError as error:
        return Scoreboard(problem=str(error))
    return Scoreboard([_item(number, found, results) for number, found in enumerate(judged, start=1)])


def _item(number: int, found: Judged, results: Path) -> Item:
    claim, cases, verdict = found
    ids = list(dict.fromkeys(run_id for case in cases for run_id in case.runs))
    line = evidence(found, results) if cases else ""
    rows = [_row(claim, case) for case in cases]
    return Item(number, claim, str(verdict), CLASSES[verdict], line, command(claim, results), rows, ids)


def _row(claim: Claim, case: Case) -> Row:
    return Row(case.where, case.study, estimate(claim, case), case_verdict(claim, case))
