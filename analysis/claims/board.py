"""All claims, by topic, in the order of the scoreboard."""

from analysis.claims import (
    advice,
    amplification,
    cost,
    data,
    memory,
    methods,
    optimisation,
    rank,
    spectrum,
    subspace,
    weight_types,
)
from analysis.claims.engine import Claim

TOPICS: dict[str, list[Claim]] = {
    "rank": rank.CLAIMS,
    "weight types": weight_types.CLAIMS,
    "subspaces": subspace.CLAIMS,
    "amplification": amplification.CLAIMS,
    "spectra": spectrum.CLAIMS,
    "methods": methods.CLAIMS,
    "rates and starts": optimisation.CLAIMS,
    "data": data.CLAIMS,
    "cost": cost.CLAIMS,
    "memory": memory.CLAIMS,
    "advice": advice.CLAIMS,
}
CLAIMS: list[Claim] = [claim for claims in TOPICS.values() for claim in claims]
