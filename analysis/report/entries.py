"""The list of the report's sections: entries.yaml, one entry a study, in the order of the paper."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any, Literal

import yaml

Show = Literal["large", "small", "extra"]


@dataclass(frozen=True)
class Caption:
    """The caption of figures whose file name matches, and how they are shown (see entries.yaml)."""

    match: str
    caption: str
    show: Show = "large"

    def text(self, name: str) -> str:
        """The caption for the file `name`: {} is ", " and what the pattern's * stands for, if that is anything."""
        before, _, after = self.match.partition("*")
        which = name[len(before) : len(name) - len(after)].strip("_")
        return self.caption.replace("{}", f", {which}" if which else "")


@dataclass(frozen=True)
class Entry:
    """A section: its folder below results/<preset>, its words, the captions of its figures."""

    folder: str
    title: str
    paper: str = ""
    see: str = ""
    differs: str = ""
    figures: tuple[Caption, ...] = ()

    def caption(self, name: str) -> Caption:
        """The caption of the figure `name`, a file's name: that of the first pattern that fits, or the name itself."""
        found = (caption for caption in self.figures if fnmatchcase(name, caption.match))
        return next(found, Caption(name, name.rpartition(".")[0].replace("_", " ")))


def load() -> list[Entry]:
    """The entries of entries.yaml, in order."""
    listed: list[dict[str, Any]] = yaml.safe_load(files("analysis.report").joinpath("entries.yaml").read_text("utf-8"))
    return [
        Entry(**entry | {"figures": tuple(Caption(**caption) for caption in entry.get("figures", ()))})
        for entry in listed
    ]
