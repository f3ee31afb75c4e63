"""Text from meaning representations (E2E), each method with its own tuned learning rate: the paper's Table 3."""

from analysis.kit.generation_study import study

STUDY = study(
    title="Text from meaning representations, E2E",
    paper="table03_e2e",
    task="e2e",
    columns={"bleu": "bleu", "nist": "nist", "meteor_stem": "meteor", "rouge_l": "rouge_l", "cider": "cider"},
)
