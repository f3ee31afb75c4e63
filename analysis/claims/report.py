"""The scoreboard as claims.md, for reading, and claims.csv, a row a case."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.claims.engine import RULE, Case, Claim, Judged, Verdict
from analysis.kit import tables
from analysis.kit.safe import make_safe

SHOWN = 3  # cases of each kind in a line of evidence, and run ids in a list of runs
COLUMNS = [
    "number", "claim", "statement", "source", "verdict", "study", "case", "case_verdict", "value", "low", "high",
    "claimed_low", "claimed_high", "n", "unit", "runs", "run_ids", "command",
]  # fmt: skip
WORDS = {Verdict.HOLDS: "holds", Verdict.FAILS: "fails", Verdict.UNDECIDED: "open"}
UNCOUNTED = "does not count"


def write(judged: Sequence[Judged], folder: Path) -> list[Path]:
    """Writes claims.md and claims.csv into folder = results/<preset>; returns their paths."""
    paths = [folder / "claims.md", folder / "claims.csv"]
    paths[0].write_text(report(judged, folder), encoding="utf-8")
    tidy(judged, folder).to_csv(paths[1], index=False, float_format="%.6g")
    make_safe(paths)
    return paths


def summary(judged: Sequence[Judged]) -> str:
    """How many claims have each verdict, in words."""
    verdicts = [found.verdict for found in judged]
    return f"{len(judged)} claims: " + ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in Verdict)


def command(claim: Claim, folder: Path) -> str:
    """What makes the runs that a claim is judged on."""
    if claim.command or not claim.files:
        return claim.command.format(preset=folder.name)
    return tables.make_command(folder / claim.files[0].partition("/")[0])


def case_verdict(claim: Claim, case: Case) -> str:
    """The verdict on a case in a word."""
    return WORDS[claim.of(case)] if case.counts else UNCOUNTED


def tidy(judged: Sequence[Judged], folder: Path) -> pd.DataFrame:
    """A row a case, with COLUMNS; a claim without runs has one row, with the command that makes them."""
    rows: list[dict[str, Any]] = []
    for number, (claim, cases, verdict) in enumerate(judged, start=1):
        about: dict[str, Any] = {"number": number, "claim": claim.key, "statement": claim.statement}
        about |= {"source": claim.source, "verdict": verdict}
        about |= {"claimed_low": claim.low, "claimed_high": claim.high, "command": command(claim, folder)}
        for case in cases:
            found = {"case": case.where, "case_verdict": case_verdict(claim, case)}
            found |= {name: getattr(case, name) for name in ("study", "value", "low", "high", "n", "unit")}
            rows.append(about | found | {"runs": len(case.runs), "run_ids": " ".join(case.runs)})
        if not cases:
            rows.append(about)
    return pd.DataFrame(rows, columns=COLUMNS)


def report(judged: Sequence[Judged], folder: Path) -> str:
    """claims.md: the rule, the count, the scoreboard, and every claim with its cases."""
    board = pd.DataFrame(
        {
            "no.": [f"[{number}](#{number})" for number in range(1, len(judged) + 1)],
            "claim": [found.claim.statement for found in judged],
            "source": [found.claim.source for found in judged],
            "verdict": [f"**{found.verdict}**" for found in judged],
            "evidence": [evidence(found, folder) for found in judged],
        }
    )
    lines = [f"# Claims about LoRA, judged on the studies in `{folder.name}`", "", RULE, ""]
    lines += [f"**{summary(judged)}.**", "", tables.markdown(board), "", "## Each claim", ""]
    for number, found in enumerate(judged, start=1):
        lines += details(number, found, folder)
    return "\n".join(lines).rstrip() + "\n"


def evidence(found: Judged, folder: Path) -> str:
    """What the cases say in one line: estimates with their intervals and n, or the command that makes the runs."""
    claim, cases, _ = found
    if not cases:
        return f"`{command(claim, folder)}`"
    kinds: dict[str, list[Case]] = {}
    for case in cases:
        kinds.setdefault(case_verdict(claim, case), []).append(case)
    parts = []
    for word in (*WORDS.values(), UNCOUNTED):
        if word in kinds:
            named = ", ".join(f"{_name(case, cases)} {estimate(claim, case)}" for case in kinds[word][:SHOWN])
            more = len(kinds[word]) - SHOWN
            parts.append(f"{word}: {named}" + (f" and {more} more" if more > 0 else ""))
    return "; ".join(parts)


def _name(case: Case, cases: Sequence[Case]) -> str:
    """Where a case is, and of which study, where another is at the same place."""
    several = sum(other.where == case.where for other in cases) > 1
    return f"{case.where} in {case.study}" if several else case.where


def estimate(claim: Claim, case: Case) -> str:
    """An estimate, its interval if it has one, its unit and n."""
    text = claim.scale.number(case.value)
    if not case.exact and not pd.isna(case.low):
        text += f" [{claim.scale.number(case.low)}, {claim.scale.number(case.high)}]"
    return f"{text}{claim.scale.unit}" + ("" if case.exact else f" ({case.n} {case.unit})")


def details(number: int, found: Judged, folder: Path) -> list[str]:
    """The section of a claim."""
    claim, cases, verdict = found
    lines = [f'### <a id="{number}"></a>{number}. {claim.statement}', ""]
    lines += [f"- Verdict: **{verdict}**", f"- Source: {claim.source}", f"- Statistic: {claim.statistic}"]
    lines += [f"- It holds in a case whose interval lies {claim.threshold}."]
    there, missing = _files(claim.files, folder)
    if there:
        runs = list(dict.fromkeys(run_id for case in cases for run_id in case.runs))
        ids = f"; {len(runs)} runs ({', '.join(runs[:SHOWN])}{', …' if len(runs) > SHOWN else ''})" if runs else ""
        lines += [f"- Read: {', '.join(f'[{name}]({name})' for name in there)}{ids}"]
    commands = dict.fromkeys(tables.make_command(folder / name.partition("/")[0]) for name in missing)
    if missing:
        lines += [f"- Not there: {', '.join(missing)}, which {', '.join(f'`{text}`' for text in commands)} makes"]
    if not cases and claim.command:
        lines += [f"- The runs: `{command(claim, folder)}`"]
    lines += [""]
    if cases:
        table = {
            "case": [case.where for case in cases],
            "study": [case.study for case in cases],
            "estimate [95% interval] (n)": [estimate(claim, case) for case in cases],
            "": [case_verdict(claim, case) for case in cases],
        }
        lines += [tables.markdown(pd.DataFrame(table)), ""]
    return lines


def _files(names: Iterable[str], folder: Path) -> tuple[list[str], list[str]]:
    """The files of `names` that are there, and the names of which there is none."""
    found = {name: sorted(path.relative_to(folder).as_posix() for path in folder.glob(name)) for name in names}
    return [path for paths in found.values() for path in paths], [name for name, paths in found.items() if not paths]
