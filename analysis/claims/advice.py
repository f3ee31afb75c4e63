"""The claim about this suite's own advice: `make advise` in place of a sweep."""

from analysis.claims.engine import Case, Claim, Frames
from analysis.claims.measures import places, replicates

REGRET = "advice-study/regret.csv"
HALF_A_POINT = 0.005


def _regret(frames: Frames) -> list[Case]:
    cases = []
    for where, task, rows in places(frames.get(REGRET)):
        own = rows[rows["contender"] == "the advice"]
        cases += replicates("advice-study", where, task, own.set_index("seed")["regret"], runs=tuple(own["run_id"]))
    return cases


CLAIMS = [
    Claim(
        key="advice",
        statement="The advice, of a few trainings at a large rank that are cut, is at most half a point below a sweep.",
        source="this suite, docs/advice.md",
        statistic="Test score of the sweep's best, chosen on validation data, minus that of the advice, by seed.",
        files=(REGRET,),
        judge=_regret,
        high=HALF_A_POINT,
        margin=HALF_A_POINT,
    ),
]
