"""Text from triples (WebNLG), of categories seen and not seen in training, and of all: the paper's Table 14."""

from analysis.kit.generation_study import study

STUDY = study(
    title="Text from triples, WebNLG",
    paper="table14_webnlg",
    task="webnlg",
    columns={
        f"{name}{suffix}": f"{column}_{group}"
        for name, column in (("bleu", "bleu"), ("meteor_stem", "meteor"), ("ter", "ter"))
        for group, suffix in (("unseen", "_unseen"), ("seen", "_seen"), ("all", ""))
    },
    fractions=["meteor_stem_unseen", "meteor_stem_seen", "meteor_stem"],
)
