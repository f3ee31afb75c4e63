"""Text from triples (WebNLG), of categories seen and not seen in training, and of all: the paper's Table 14."""

from pathlib import Path

from analysis.kit import generation
from analysis.kit.generation_metrics import BLEU, LOSS, METEOR_FRACTION, METEOR_NOTE, TER, Study

STUDY = Study(
    title="Text from triples, WebNLG (the paper's Table 14)",
    paper_task="webnlg",
    paper="table14_webnlg.csv",
    metrics={
        f"{name}{suffix}": metric._replace(title=f"{metric.title} {group}", column=f"{metric.column}_{group}")
        for name, metric in (("bleu", BLEU), ("meteor_stem", METEOR_FRACTION), ("ter", TER))
        for group, suffix in (("unseen", "_unseen"), ("seen", "_seen"), ("all", ""))
    }
    | {"loss": LOSS},
    note=METEOR_NOTE,
)


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """The tables, figures and samples of `kit.generation.build`, which says what it raises."""
    return generation.build(STUDY, study_dir, runs_dir)
