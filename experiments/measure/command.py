"""How the commands of measurements begin and end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from lora.config import InputError


def finish(measure: Callable[[], None]) -> int:
    """Run a measurement: 0, 2 with one line on stderr if the input cannot work, 130 if it was interrupted."""
    # Threads that wait must not spin: beside other work on the same cores that makes a pass several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        measure()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was measured is stored, the same command continues", file=sys.stderr)
        return 130
    return 0
