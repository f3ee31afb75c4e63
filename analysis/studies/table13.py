"""Text from triples (DART): the paper's Table 13."""

from pathlib import Path

from analysis.kit import generation
from analysis.kit.generation_metrics import BLEU, LOSS, METEOR_FRACTION, METEOR_NOTE, TER, Study

STUDY = Study(
    title="Text from triples, DART (the paper's Table 13)",
    paper_task="dart",
    paper="table13_dart.csv",
    metrics={"bleu": BLEU, "meteor_stem": METEOR_FRACTION, "ter": TER, "loss": LOSS},
    note=METEOR_NOTE,
)


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """The tables, figures and samples of `kit.generation.build`, which says what it raises."""
    return generation.build(STUDY, study_dir, runs_dir)
