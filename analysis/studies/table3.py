"""Text from meaning representations (E2E), each method with its own tuned learning rate: the paper's Table 3."""

from pathlib import Path

from analysis.kit import generation
from analysis.kit.generation_metrics import BLEU, CIDER, LOSS, METEOR, METEOR_NOTE, NIST, ROUGE_L, Study

STUDY = Study(
    title="Text from meaning representations, E2E (the paper's Table 3)",
    paper_task="e2e",
    paper="table03_e2e.csv",
    metrics={"bleu": BLEU, "nist": NIST, "meteor_stem": METEOR, "rouge_l": ROUGE_L, "cider": CIDER, "loss": LOSS},
    note=METEOR_NOTE,
)


def build(study_dir: Path, runs_dir: Path) -> list[Path]:
    """The tables, figures and samples of `kit.generation.build`, which says what it raises."""
    return generation.build(STUDY, study_dir, runs_dir)
