"""The report's sections: the YAML beside each study, in the order that these give, which is the paper's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal

import yaml

Show = Literal["large", "small", "extra", "map"]


@dataclass(frozen=True)
class Caption:
    """The caption of figures whose file name matches, and how they are shown.

    The first caption that fits a file is taken. show: large (of several files of one caption the first alone is; the
    others are small), small (one of a grid of thumbnails), extra (a thumbnail where there is room, else a link) or map
    (extra where the page draws its grids of phi itself, else large).
    """

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
    """A section: its folder below results/<preset>, its words, the captions of its figures.

    paper: which tables, figures or sections of the paper it is about; make: the target that makes it; see: what to look
    at (what was found is in the study's table.md, from its numbers); differs: what is not as in the paper, and why.
    measure: the commands of `experiments.measure` that come before the tables, on the study's runs or, for a study that
    has none, on a model; measure_options: what they are told in a preset.
    """

    folder: str
    title: str
    paper: str = ""
    make: str = ""
    order: float = 0.0
    see: str = ""
    differs: str = ""
    figures: tuple[Caption, ...] = ()
    measure: tuple[str, ...] = ()
    measure_options: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def caption(self, name: str) -> Caption:
        """The caption of the figure `name`, a file's name: that of the first pattern that fits, or the name itself."""
        found = (caption for caption in self.figures if fnmatchcase(name, caption.match))
        return next(found, Caption(name, name.rpartition(".")[0].replace("_", " ")))


def load() -> list[Entry]:
    """An entry for every study, and one for what is beside them in this package (the bench), in order."""
    folders = (files("analysis.studies"), files("analysis.report"))
    paths = [path for folder in folders for path in folder.iterdir() if path.name.endswith(".yaml")]
    return sorted(map(_read, paths), key=lambda entry: (entry.order, entry.folder))


def _read(path: Traversable) -> Entry:
    fields: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    captions = tuple(Caption(**caption) for caption in fields.pop("figures", ()))
    measure = tuple(fields.pop("measure", ()))
    return Entry(path.name.removesuffix(".yaml"), **fields, figures=captions, measure=measure)
