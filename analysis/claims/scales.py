"""How the estimates of claims are written: as points, shares, nats a token, or ratios."""

import math
from typing import NamedTuple


class Scale(NamedTuple):
    """How estimates are written: times factor, with so many digits, a sign where they are differences, and a unit.

    log: estimates are logarithms of ratios; what is written is the ratio.
    """

    factor: float = 1
    digits: int = 2
    signed: bool = False
    unit: str = ""
    log: bool = False

    def shown(self, value: float) -> float:
        """An estimate as it is written, before rounding."""
        return self.factor * (math.exp(value) if self.log else value)

    def number(self, value: float) -> str:
        """The number alone, without its unit."""
        rounded = round(self.shown(value), self.digits) + 0.0  # no -0.0
        return f"{rounded:{'+' if self.signed else ''}.{self.digits}f}"

    def text(self, value: float) -> str:
        """The number with its unit."""
        return f"{self.number(value)}{self.unit}"

    def distance(self, value: float) -> str:
        """A distance between estimates, such as a margin: a factor, where they are ratios."""
        if self.log:
            return f"a factor of {math.exp(value):.{self.digits}f}"
        return self._replace(signed=False).text(value)


POINTS = Scale(100, 1, signed=True, unit=" points")
PERCENT = Scale(100, 1, unit="%")
PLAIN = Scale()
SIGNED = Scale(signed=True)
NATS = Scale(digits=3, signed=True, unit=" nats")
TIMES = Scale(unit="×", log=True)
