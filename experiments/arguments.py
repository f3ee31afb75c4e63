"""Command lines of measurements, which have no Hydra config."""

import argparse
import sys
from typing import NoReturn

from lora.config import InputError


def program(module: str) -> str:
    """What was typed to start the command of a module: `lora-lab NAME`, or `python -m MODULE`."""
    return sys.argv[0] if sys.argv[0].startswith("lora-lab ") else f"python -m {module}"


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are InputError, one line like all others."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        raise InputError(message)


def whole(text: str) -> int:
    """An argument that is a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 1")
    return int(text)
