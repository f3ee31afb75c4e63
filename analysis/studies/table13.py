"""Text from triples (DART): the paper's Table 13."""

from analysis.kit.generation_study import study

STUDY = study(
    title="Text from triples, DART",
    paper="table13_dart",
    task="dart",
    columns={"bleu": "bleu", "meteor_stem": "meteor", "ter": "ter"},
    fractions=["meteor_stem"],
)
