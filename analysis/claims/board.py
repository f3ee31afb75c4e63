"""All claims, in the order of the scoreboard."""

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

CLAIMS: list[Claim] = [
    *rank.CLAIMS,
    *weight_types.CLAIMS,
    *subspace.CLAIMS,
    *amplification.CLAIMS,
    *spectrum.CLAIMS,
    *methods.CLAIMS,
    *optimisation.CLAIMS,
    *data.CLAIMS,
    *cost.CLAIMS,
    *memory.CLAIMS,
    *advice.CLAIMS,
]
