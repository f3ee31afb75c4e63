"""For mkdocs: the pages of the repository, and all that they link to, at the places where they are in it.

So one link works in the repository and on the site.
"""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(([^)#\s:]+)")
STARTS = ("*.md", "docs/*.md")


def linked() -> set[Path]:
    """README, docs and every file of the repository that these, or pages that they link to, link to."""
    waiting = [path for pattern in STARTS for path in ROOT.glob(pattern)]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in found or not path.is_file() or ROOT not in path.parents:
            continue
        found.add(path)
        if path.suffix == ".md":
            waiting += [(path.parent / link).resolve() for link in LINK.findall(path.read_text(encoding="utf-8"))]
    return found


def on_config(config: Any) -> Any:
    """Copy the pages, and let mkdocs read the copy."""
    folder = Path(tempfile.mkdtemp(prefix="lora-lab-docs-"))
    for path in linked():
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    config.docs_dir = str(folder)
    return config


def on_post_build(config: Any) -> None:
    """Remove the copy."""
    shutil.rmtree(config.docs_dir)
