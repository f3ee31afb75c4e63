"""Command lines of measurements, which have no Hydra config."""

import argparse
from typing import NoReturn

from lora.config import InputError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are InputError, one line like all others."""

    def error(self, message: str) -> NoReturn:
        """Raises InputError."""
        raise InputError(message)
