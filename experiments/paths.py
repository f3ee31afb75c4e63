"""Where the user's files are."""

import os
from pathlib import Path


def user_path(path: str | Path) -> Path:
    """A path with ~ as the user's home; a name that only begins so, ~draft.csv, is a name (pathlib raises there)."""
    return Path(os.path.expanduser(path))
