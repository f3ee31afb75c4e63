"""What both files of the report are written from."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from analysis.report.scoreboard import Item, Scoreboard
from analysis.report.section import Section

ABOUT = (
    "Every analysis of [LoRA: Low-Rank Adaptation of Large Language Models](https://arxiv.org/abs/2106.09685) (Hu et "
    "al., 2021) that is stored here, with the paper's numbers beside ours where it has any: answers in short, what "
    "became of each claim, then every table and figure in the order of the paper."
)


@dataclass(frozen=True)
class Report:
    """The folder results/<preset>, its studies in order, and the claims judged on them."""

    results: Path
    sections: list[Section]
    board: Scoreboard

    @property
    def title(self) -> str:
        """The title of the page."""
        return f"lora-lab: the {self.results.name} results"

    @property
    def count(self) -> str:
        """How many studies have results, and the day of the newest."""
        done = [section for section in self.sections if section.done]
        day = max((section.made.date for section in done), default="")[:10]
        return f"{len(done)} of {len(self.sections)} studies have results" + (f", the newest of {day}." if day else ".")

    def link(self, path: Path) -> str:
        """The target of a link from the report to a file of a study."""
        return quote(path.relative_to(self.results).as_posix())

    def judged_on(self, section: Section) -> list[Item]:
        """The claims that have a case from a study."""
        return [item for item in self.board.items if section.entry.folder in item.studies]
