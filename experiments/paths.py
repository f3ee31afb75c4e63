"""Where the user's files are, and how files are written: whole, or not at all."""

import os
import threading
from pathlib import Path


def user_path(path: str | Path) -> Path:
    """A path with ~ as the user's home; a name that only begins so, ~draft.csv, is a name (pathlib raises there)."""
    return Path(os.path.expanduser(path))


def write(path: Path, content: str | bytes) -> None:
    """All of the content, or what was there before, whatever happens meanwhile. Its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)
