"""What a judgement says in words: estimate, error, evidence, and what would decide it."""

import math

from analysis.claims.engine import Case, Claim, Judged, Verdict, counts
from analysis.maths import judging
from analysis.maths.estimates import LEVEL, Estimate
from analysis.maths.judging import POWER
from analysis.maths.statistics import holm

WORDS = {
    "seeds": "seed",
    "pairs of runs": "pair of runs",
    "rounds": "round",
    "tuning seeds": "tuning seed",
    "tasks": "task",
    "models": "model",
    "runs": "run",
}


def number(n: int, unit: str) -> str:
    """`1 seed`, `3 seeds`."""
    return f"{n} {WORDS.get(unit, unit) if n == 1 else unit}"


def estimate(claim: Claim, found: Estimate) -> str:
    """A value with its 95% interval, if it has one, and its unit."""
    text = claim.scale.number(found.value)
    if found.error > 0:
        low, high = found.interval
        text += f" [{claim.scale.number(low)}, {claim.scale.number(high)}]"
    return f"{text}{claim.scale.unit}"


def of_case(claim: Claim, case: Case) -> str:
    """The estimate of a case, over how many replicates, and what must be known of it."""
    if math.isnan(case.estimate.value):
        return case.note
    text = estimate(claim, case.estimate)
    if not case.exact:
        text += f" ({number(case.estimate.n, case.unit)}{', items in the error' if case.items else ''})"
        if not counts(claim, case):
            text += "; too few to count"
    return f"{text}; {case.note}" if case.note else text


def p_text(p: float) -> str:
    """A corrected p, or a dash where nothing is tested."""
    return "–" if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def tasks(judged: Judged) -> int:
    """How many tasks the estimate is of."""
    return len({case.task for case in judged.cases if counts(judged.claim, case)})


def runs(judged: Judged) -> list[str]:
    """The ids of the runs that it is judged on, each once."""
    return list(dict.fromkeys(run_id for case in judged.cases for run_id in case.runs))


def sizes(judged: Judged) -> str:
    """On how many tasks, cases, replicates and runs it is judged."""
    counted = [case for case in judged.cases if counts(judged.claim, case)]
    cases = counted or judged.cases
    ns = sorted({case.estimate.n for case in cases})
    each = "" if cases[0].exact else f", {number(ns[-1], cases[0].unit)}"
    if len(ns) > 1 and not cases[0].exact:
        each = f", {ns[0]} to {number(ns[-1], cases[0].unit)}"
    count = len({case.task for case in cases})
    ids, unit = runs(judged), cases[0].unit
    text = f"{number(count, 'tasks' if ids else 'models')}{each}" if unit != "tasks" else each.removeprefix(", ")
    if len(cases) > count:
        text += f", {len(cases)} cases"
    return text + (f", {number(len(ids), 'runs')}" if ids else "")


def differ(judged: Judged) -> str:
    """How much tasks differ; empty of one."""
    if math.isnan(judged.differ.tau):
        return ""
    scale = judged.claim.scale
    tau = f"{math.exp(judged.differ.tau):.2f}×" if scale.log else scale._replace(signed=False).text(judged.differ.tau)
    return f"I² {100 * judged.differ.i_squared:.0f}%, tau {tau}"


def needs(judged: Judged) -> str:
    """What would decide it, of what is not decided: empty else."""
    if judged.verdict is not Verdict.UNDECIDED:
        return ""
    claim, unit = judged.claim, judged.cases[0].unit
    if judged.estimate is None:
        most = max(case.estimate.n for case in judged.cases)
        return f"{number(most, unit)} of each; {claim.least} are needed"
    text = f"power {100 * judged.power:.0f}% for {claim.scale.distance(judged.effect)}"
    if judged.needed is None:
        return f"{text}; more {unit} alone would not decide it"
    return f"{text}; {judged.needed} {unit} would have {100 * POWER:.0f}%"


def opposed(judged: Judged) -> list[str]:
    """The places of cases that alone are established, corrected for the number of cases, on the other side than the
    claim is: the verdict is on their mean."""
    counted = [case for case in judged.cases if counts(judged.claim, case)]
    low, high = judged.claim.region
    sides = [judging.against(case.estimate, low, high) for case in counted if case.estimate.error > 0]
    if not sides or judged.verdict not in (Verdict.HOLDS, Verdict.FAILS):
        return []
    ps = holm([side.outside if judged.verdict is Verdict.HOLDS else side.inside for side in sides])
    return [case.place for case, p in zip(counted, ps, strict=True) if p < LEVEL]


def evidence(judged: Judged) -> str:
    """What the cases say in one line; empty without runs."""
    if not judged.cases:
        return ""
    parts = [sizes(judged), differ(judged), needs(judged)]
    if against := opposed(judged):
        parts.append(f"the opposite on {', '.join(against)}")
    if judged.estimate is not None:
        parts.insert(0, estimate(judged.claim, judged.estimate))
    if judged.estimate is not None and judged.estimate.error > 0:
        parts.insert(3, f"p {p_text(judged.p)}" if p_text(judged.p)[0] == "<" else f"p = {p_text(judged.p)}")
    return "; ".join(part for part in parts if part)


def error(judged: Judged) -> str:
    """What its error holds."""
    cases = [case for case in judged.cases if counts(judged.claim, case)]
    if not cases or all(case.exact for case in cases):
        return "none"
    of = {case.items for case in cases}
    unit = cases[0].unit
    return (
        f"{unit} and test items"
        if of == {True}
        else f"{unit}, in some cases test items"
        if True in of
        else f"{unit} only"
    )
