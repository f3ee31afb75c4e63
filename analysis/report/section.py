"""What a study's folder holds for the report: tables, figures, files, and what is missing or damaged."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from analysis.kit.tables import make_command
from analysis.report import made, phi_maps
from analysis.report.entries import Entry, Show
from analysis.report.runs import StudyRuns

SAMPLES = "samples.md"  # linked, not shown: texts, which no table or figure is
OPENED = (".csv", ".json", ".md")  # files that the report links


@dataclass(frozen=True)
class Figure:
    """A figure file with its caption, and how it is shown: of those with one caption the first alone is large."""

    path: Path
    caption: str
    show: Show


@dataclass
class Section:
    """A study as the report shows it; maps: of `phi_maps`; problems: a line for each file that is damaged."""

    entry: Entry
    folder: Path
    made: made.Made
    runs: StudyRuns
    maps: list[dict[str, Any]] = field(default_factory=list)
    tables: list[tuple[str, str]] = field(default_factory=list)  # file name, markdown
    figures: list[Figure] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        """What makes the study, e.g. `make ablate-rank PRESET=desk`."""
        return make_command(self.folder)

    @property
    def linked(self) -> list[Path]:
        """All files that the report links: tables, figures, and what else can be opened."""
        tables = [self.folder / name for name, _ in self.tables]
        return [*tables, *(figure.path for figure in self.figures), *self.files]

    @property
    def done(self) -> bool:
        """Whether there is a table or a figure to show."""
        return bool(self.tables or self.figures)

    @property
    def state(self) -> str:
        """Why nothing is shown, as a line of markdown, of a study that is not done."""
        if self.problems:
            return f"damaged: {'; '.join(self.problems)}"
        begun = self.folder.is_dir() and any(self.folder.iterdir())
        return f"{'not finished' if begun else 'not run'}: `{self.command}`"


def find(results: Path, entries: Sequence[Entry]) -> list[Section]:
    """A section for every entry, in order, then one for every other folder of `results` that has a table or figure."""
    listed = {entry.folder for entry in entries}
    others = [folder.name for folder in sorted(results.iterdir()) if folder.is_dir() and folder.name not in listed]
    unlisted = [read(results / name, Entry(name, name.replace("_", " "))) for name in others]
    return [*(read(results / entry.folder, entry) for entry in entries), *(found for found in unlisted if found.done)]


def read(folder: Path, entry: Entry) -> Section:
    """Reads a study's folder, which may be missing. What is damaged is a line of `problems`, and the rest is kept."""
    how = made.read(folder, make_command(folder))
    section = Section(entry, folder, how, StudyRuns(folder), problems=list(how.problems))
    try:
        section.maps = phi_maps.read(folder)
    except (OSError, ValueError, KeyError) as error:
        section.problems.append(f"phi cannot be read ({error}); `{section.command}` writes it again")
    there = [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []
    written = {name: place for place, name in enumerate(how.outputs)}
    for path in sorted(there, key=lambda path: (written.get(path.name, len(written)), path.name)):
        try:
            if path.suffix == ".png":
                section.figures.append(_figure(path, section))
            elif path.suffix == ".md" and path.name != SAMPLES:
                section.tables.append((path.name, path.read_text(encoding="utf-8")))
            elif path.suffix in OPENED:
                section.files.append(path)
        except (OSError, ValueError, SyntaxError):
            section.problems.append(f"{path.name} cannot be read; `{section.command}` writes it again")
    return section


def _figure(path: Path, section: Section) -> Figure:
    with Image.open(path) as picture:
        picture.load()  # a file that was cut short opens, but does not load
    caption = section.entry.caption(path.name)
    again = any(section.entry.caption(figure.path.name) is caption for figure in section.figures)
    show = caption.show
    if show == "map":
        show = "extra" if section.maps else "large"
    return Figure(path, caption.text(path.name), "small" if again and show == "large" else show)
