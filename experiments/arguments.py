"""Commands that have no Hydra config: their command lines, and how they begin and end."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from experiments import names
from lora.config import InputError


def program(module: str) -> str:
    """What was typed to start the command of a module: `lora-lab NAME`, or `python -m MODULE`."""
    return sys.argv[0] if sys.argv[0].startswith("lora-lab ") else f"python -m {module}"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are InputError, one line like all others, with the nearest name."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        known = [option for option in self._option_string_actions if option.startswith("--")]
        if unknown := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            message = f"unknown option {unknown[1]}{names.did_you_mean(unknown[1], known)}"
        elif wrong := re.fullmatch(r"argument (.+): invalid choice: '(.*)' \(choose from (.*)\)", message):
            there_are = re.findall(r"[^', ]+", wrong[3])
            message = f"{wrong[1]} = {wrong[2]}{names.did_you_mean(wrong[2], there_are)}"
        raise InputError(message)


def whole(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)


def finish(work: Callable[[], None], kept: str = "what was measured is stored, the same command continues") -> int:
    """Do the work of a command: 0, 2 with one line on stderr if the input cannot work, 130 if it was interrupted, with
    what is `kept`."""
    # Threads that wait must not spin: beside other work on the same cores that makes a pass several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        work()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted: {kept}", file=sys.stderr)
        return 130
    return 0
