"""The type of the fixture `cli` of conftest.py, by another name than that of the conftest of the engines' tests."""

from collections.abc import Callable
from typing import Any

Cli = Callable[..., Any]
