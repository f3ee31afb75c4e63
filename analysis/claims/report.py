"""The scoreboard as claims.md, for reading, and claims.csv, a row a case."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from analysis.claims import board, words
from analysis.claims.engine import RULE, Claim, Judged, Verdict, counts
from analysis.kit import tables
from analysis.kit.safe import make_safe

FILES = {
    claim.key: f"{module.__name__.replace('.', '/')}.py"
    for module in vars(board).values()
    if isinstance(module, ModuleType)
    for claim in module.CLAIMS
}
SHOWN = 3  # run ids in a list of runs
COLUMNS = [
    "number", "claim", "statement", "source", "verdict", "estimate", "low", "high", "unit", "claimed_low",
    "claimed_high", "margin", "p_holm", "tasks", "cases", "replicates", "replicate", "runs", "i_squared", "tau",
    "error", "power", "needed", "study", "case", "case_estimate", "case_low", "case_high", "case_n", "case_counts",
    "note", "run_ids", "command",
]  # fmt: skip


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
    return f"{len(judged)} claims: " + "; ".join(f"{verdict}: {verdicts.count(verdict)}" for verdict in Verdict)


def command(claim: Claim, folder: Path) -> str:
    """What makes the runs that a claim is judged on, or adds to them."""
    if claim.command or not claim.files:
        return claim.command.format(preset=folder.name)
    return tables.make_command(folder / claim.files[0].partition("/")[0])


def tidy(judged: Sequence[Judged], folder: Path) -> pd.DataFrame:
    """A row a case, with COLUMNS; a claim without runs has one row. Estimates and their ends, the claimed region and
    the margin are as the claim says them: of ratios ratios, of scores fractions of one."""
    rows: list[dict[str, Any]] = []
    for place, found in enumerate(judged, start=1):
        claim = found.claim
        about: dict[str, Any] = {"number": place, "claim": claim.key, "statement": claim.statement}
        about |= {"source": claim.source, "verdict": found.verdict, "command": command(claim, folder)}
        about |= {"claimed_low": claim.low, "claimed_high": claim.high, "margin": claim.margin}
        about |= {"unit": claim.scale.unit.strip(), "error": words.error(found)}
        if found.estimate is not None:
            about |= _ends(claim, found.estimate.value, found.estimate.interval, "estimate", "low", "high")
            about |= {"p_holm": found.p, "tasks": words.tasks(found), "replicates": found.estimate.n}
            about |= {"cases": sum(counts(claim, case) for case in found.cases), "power": found.power}
            about |= {"needed": found.needed, "i_squared": found.differ.i_squared, "tau": found.differ.tau}
        about |= {"runs": len(words.runs(found))}
        for case in found.cases:
            own: dict[str, Any] = {"study": case.study, "case": case.place, "replicate": case.unit, "note": case.note}
            own |= {"case_n": case.estimate.n, "case_counts": counts(claim, case), "run_ids": " ".join(case.runs)}
            names = ("case_estimate", "case_low", "case_high")
            rows.append(about | own | _ends(claim, case.estimate.value, case.estimate.interval, *names))
        if not found.cases:
            rows.append(about)
    return pd.DataFrame(rows, columns=COLUMNS)


def _ends(claim: Claim, value: float, ends: tuple[float, float], *names: str) -> dict[str, float]:
    numbers = (value, *ends)
    return dict(zip(names, map(math.exp, numbers) if claim.scale.log else numbers, strict=True))


def report(judged: Sequence[Judged], folder: Path) -> str:
    """claims.md: the rule, the count, the scoreboard, and every claim with its cases."""
    board = pd.DataFrame(
        {
            "no.": [f"[{number}](#{number})" for number in range(1, len(judged) + 1)],
            "claim": [found.claim.statement for found in judged],
            "source": [found.claim.source for found in judged],
            "verdict": [f"**{found.verdict}**" for found in judged],
            "evidence": [words.evidence(found) or f"`{command(found.claim, folder)}`" for found in judged],
        }
    )
    lines = [f"# Claims about LoRA, judged on the studies in `{folder.name}`", "", RULE, ""]
    lines += [f"**{summary(judged)}.**", "", tables.markdown(board), "", "## Each claim", ""]
    for number, found in enumerate(judged, start=1):
        lines += details(number, found, folder)
    return "\n".join(lines).rstrip() + "\n"


def details(number: int, found: Judged, folder: Path) -> list[str]:
    """The section of a claim."""
    claim = found.claim
    lines = [f'### <a id="{number}"></a>{number}. {claim.statement}', ""]
    lines += [f"- Verdict: **{found.verdict}**", f"- Source: {claim.source}", f"- Statistic: {claim.statistic}"]
    if claim.key in FILES:
        lines += [f"- Key: `{claim.key}`, in `{FILES[claim.key]}`"]
    lines += [f"- It holds {claim.threshold}{_equal(claim)}."]
    if evidence := words.evidence(found):
        lines += [f"- Found: {evidence}. Error: {words.error(found)}."]
    there, missing = _files(claim.files, folder)
    if there:
        ids = words.runs(found)
        listed = f"; {len(ids)} runs ({', '.join(ids[:SHOWN])}{', …' if len(ids) > SHOWN else ''})" if ids else ""
        lines += [f"- Read: {', '.join(f'[{name}]({name})' for name in there)}{listed}"]
    commands = dict.fromkeys(tables.make_command(folder / name.partition("/")[0]) for name in missing)
    if missing:
        lines += [f"- Not there: {', '.join(missing)}, which {', '.join(f'`{text}`' for text in commands)} makes"]
    if found.verdict in (Verdict.UNDECIDED, Verdict.NO_RUNS) and command(claim, folder):
        lines += [f"- The runs: `{adds(found, folder)}`"]
    lines += [""]
    if found.cases:
        table = {
            "case": [case.place for case in found.cases],
            "study": [case.study for case in found.cases],
            "estimate [95% interval] (n)": [words.of_case(claim, case) for case in found.cases],
        }
        lines += [tables.markdown(pd.DataFrame(table)), ""]
    return lines


def adds(found: Judged, folder: Path) -> str:
    """The command that makes the runs, or adds the seeds that would decide it."""
    text = command(found.claim, folder)
    if found.needed is None or found.cases[0].unit != "seeds" or "ARGS" in text:
        return text
    return f"{text} ARGS='seed={','.join(map(str, range(min(found.needed, 20))))}'"


def _equal(claim: Claim) -> str:
    return f"; equal means nearer than {claim.scale.distance(claim.effect)}" if claim.may_be_equal else ""


def _files(names: Iterable[str], folder: Path) -> tuple[list[str], list[str]]:
    """The files of `names` that are there, and the names of which there is none."""
    found = {name: sorted(path.relative_to(folder).as_posix() for path in folder.glob(name)) for name in names}
    return [path for paths in found.values() for path in paths], [name for name, paths in found.items() if not paths]
