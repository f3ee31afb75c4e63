"""Claims about LoRA beside full fine-tuning, adapters, BitFit, prefixes, and its own variants."""

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.claims.engine import Claim
from analysis.claims.measures import best, method, runs_of
from analysis.claims.pairs import BOTH, BOTH_LOSS, Choose, Pair, grown, of_losses, of_scores
from analysis.kit import tables

NEAR = 1.25  # the factor within which numbers of parameters are about equal
CLASSIFIERS = runs_of("compare_methods", "scaling", "memory_methods", "table2")
WRITERS = runs_of("table3", "table4", "table13", "table14", "table15", "memory_methods")
EVERY_METHOD = (
    "lora,full,adapter_h,bitfit,prefix_layer,adapter_l,adapter_p,adapter_d,ft_top2,prefix_embed,lora+prefix_embed,"
    "lora+prefix_layer,head_only,rslora,dora,lora_plus"
)


def minus(ours: str, theirs: str) -> Choose:
    """The runs of two methods, each at the settings that are best on validation data."""

    def choose(rows: pd.DataFrame) -> Iterator[Pair]:
        yield Pair(method(rows, ours), method(rows, theirs))

    return choose


def _adapters(rows: pd.DataFrame) -> Iterator[Pair]:
    lora = method(rows, "lora")
    sizes = tables.without_head(rows).fillna(rows["trainable_params"])
    factor = sizes / sizes.reindex(lora.index).mean()
    near = rows[rows["label"].str.startswith("adapter_") & factor.between(1 / NEAR, NEAR)]
    yield Pair(lora, best(near.assign(name=near["label"] + near["settings"]), "name"))


def _falls(labels: Sequence[str]) -> Choose:
    def choose(rows: pd.DataFrame) -> Iterator[Pair]:
        for label in labels:
            yield grown(rows[rows["label"] == label], "trainable_params", "settings", label)

    return choose


def _variant(label: str, statement: str, source: str, studies: Sequence[str], command: str = "") -> Claim:
    return of_scores(
        f"{label}_better",
        statement,
        source,
        f"{label} minus LoRA. {BOTH}",
        runs_of(*studies),
        minus(label, "lora"),
        low=0,
        command=command,
    )


_COMPARE = f"make compare-methods PRESET={{preset}} ARGS='method={EVERY_METHOD}'"
_GROWTH = "The largest size minus the best of the others, chosen on validation data; "
_PREFIXES = ["prefix_embed", "prefix_layer"]

CLAIMS = [
    of_scores(
        "as_good_as_full", "LoRA matches or beats full fine-tuning: it is at most a point below.",
        "paper, Section 5, Table 2", f"LoRA minus full fine-tuning. {BOTH}", CLASSIFIERS, minus("lora", "full"), low=-1,
    ),
    of_losses(
        "as_good_as_full_text",
        "Where text is written, LoRA matches or beats full fine-tuning: it loses less than 2% of the "
        "perplexity.", "paper, Section 5, Tables 3 and 4", f"LoRA minus full fine-tuning. {BOTH_LOSS}", WRITERS,
        minus("lora", "full"), low=-1,
    ),
    of_scores(
        "above_adapters", "LoRA is better than adapters with as many parameters.", "paper, Section 5, Table 2",
        f"LoRA minus the best adapter that has, within a factor of {NEAR}, as many parameters. {BOTH}", CLASSIFIERS,
        _adapters, low=0,
    ),
    of_losses(
        "above_adapters_text", "Where text is written, LoRA is better than adapters with as many parameters.",
        "paper, Section 5, Table 3",
        f"LoRA minus the best adapter that has, within a factor of {NEAR}, as many parameters. {BOTH_LOSS}", WRITERS,
        _adapters, low=0,
    ),
    of_scores(
        "bitfit_below", "BitFit, which trains the biases alone, is below LoRA.", "paper, Section 5, Table 2",
        f"BitFit minus LoRA. {BOTH}", CLASSIFIERS, minus("bitfit", "lora"), high=0,
    ),
    of_scores(
        "prefixes_fall", "Prefix methods get worse as they grow.", "paper, Section 5.5, Figure 2",
        f"{_GROWTH}test scores, paired by seed; both methods.", runs_of("scaling"), _falls(_PREFIXES), high=0,
    ),
    of_losses(
        "prefixes_fall_text", "Where text is written, prefix methods get worse as they grow.",
        "paper, Section 5.5, Table 15", f"{_GROWTH}by how much the test loss is lower, paired by seed; both methods.",
        runs_of("table15"), _falls(_PREFIXES), high=0,
    ),
    of_scores(
        "with_prefixes", "LoRA with prefix-embedding tuning is better than LoRA alone.", "paper, Section E",
        f"lora+prefix_embed minus LoRA. {BOTH}", runs_of("compare_methods"), minus("lora+prefix_embed", "lora"), low=0,
    ),
    of_losses(
        "with_prefixes_text", "Where text is written, LoRA with prefix-embedding tuning is better than LoRA alone.",
        "paper, Section E, Table 15", f"lora+prefix_embed minus LoRA. {BOTH_LOSS}", runs_of("table15"),
        minus("lora+prefix_embed", "lora"), low=0,
    ),
    _variant(
        "rslora", "Scaling by alpha / sqrt(r) is better (rsLoRA).", "arXiv 2312.03732", ["compare_methods"], _COMPARE
    ),
    _variant(
        "dora", "A magnitude apart from the direction is better (DoRA).", "arXiv 2402.09353",
        ["compare_methods"], _COMPARE,
    ),
    _variant(
        "lora_plus", "A larger learning rate for B is better (LoRA+).", "arXiv 2402.12354",
        ["compare_methods"], _COMPARE,
    ),
    _variant(
        "pissa", "Starting at W0's principal part is better (PiSSA).", "arXiv 2404.02948", ["init", "compare_methods"]
    ),
    _variant(
        "lora_ga", "Starting along the gradient is better (LoRA-GA).", "arXiv 2407.05000", ["init", "compare_methods"]
    ),
]  # fmt: skip
