"""Claims about LoRA beside full fine-tuning, adapters, BitFit, prefixes, and its own variants."""

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.claims.engine import NATS, Claim
from analysis.claims.measures import Choose, Pair, best, compared, method, runs_of
from analysis.claims.rank import NAT, POINT
from analysis.kit import tables

NEAR = 1.25  # the factor within which numbers of parameters are about equal
BOTH = "Each at the setting that is best on validation data; test scores, paired by seed."
BOTH_LOSS = "Each at the setting with the lowest validation loss; by how much the test loss is lower, paired by seed."
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
            runs = rows[rows["label"] == label]
            large = runs["trainable_params"] == runs["trainable_params"].max()
            yield Pair(runs[large], best(runs[~large]), label)

    return choose


def _variant(label: str, statement: str, source: str, studies: Sequence[str], command: str = "") -> Claim:
    return Claim(
        key=f"{label}_better",
        statement=statement,
        source=source,
        statistic=f"{label} minus LoRA. {BOTH}",
        files=runs_of(*studies),
        judge=compared(minus(label, "lora")),
        low=0,
        margin=POINT,
        command=command,
    )


_COMPARE = f"make compare-methods PRESET={{preset}} ARGS='method={EVERY_METHOD}'"
_GROWTH = "The largest size minus the best of the others, chosen on validation data; "
_PREFIXES = ["prefix_embed", "prefix_layer"]

CLAIMS = [
    Claim(
        key="as_good_as_full",
        statement="LoRA matches or beats full fine-tuning: it is at most a point below.",
        source="paper, Section 5, Table 2",
        statistic=f"LoRA minus full fine-tuning. {BOTH}",
        files=CLASSIFIERS,
        judge=compared(minus("lora", "full")),
        low=-POINT,
        margin=POINT,
    ),
    Claim(
        key="as_good_as_full_text",
        statement="Where text is written, LoRA matches or beats full fine-tuning: it loses less than 2% of the "
        "perplexity.",
        source="paper, Section 5, Tables 3 and 4",
        statistic=f"LoRA minus full fine-tuning. {BOTH_LOSS}",
        files=WRITERS,
        judge=compared(minus("lora", "full"), written=True),
        low=-NAT,
        margin=NAT,
        scale=NATS,
    ),
    Claim(
        key="above_adapters",
        statement="LoRA is better than adapters with as many parameters.",
        source="paper, Section 5, Table 2",
        statistic=f"LoRA minus the best adapter that has, within a factor of {NEAR}, as many parameters. {BOTH}",
        files=CLASSIFIERS,
        judge=compared(_adapters),
        low=0,
        margin=POINT,
    ),
    Claim(
        key="above_adapters_text",
        statement="Where text is written, LoRA is better than adapters with as many parameters.",
        source="paper, Section 5, Table 3",
        statistic=f"LoRA minus the best adapter that has, within a factor of {NEAR}, as many parameters. {BOTH_LOSS}",
        files=WRITERS,
        judge=compared(_adapters, written=True),
        low=0,
        margin=NAT,
        scale=NATS,
    ),
    Claim(
        key="bitfit_below",
        statement="BitFit, which trains the biases alone, is below LoRA.",
        source="paper, Section 5, Table 2",
        statistic=f"BitFit minus LoRA. {BOTH}",
        files=CLASSIFIERS,
        judge=compared(minus("bitfit", "lora")),
        high=0,
        margin=POINT,
    ),
    Claim(
        key="prefixes_fall",
        statement="Prefix methods get worse as they grow.",
        source="paper, Section 5.5, Figure 2",
        statistic=f"{_GROWTH}test scores, paired by seed; both methods.",
        files=runs_of("scaling"),
        judge=compared(_falls(_PREFIXES)),
        high=0,
        margin=POINT,
    ),
    Claim(
        key="prefixes_fall_text",
        statement="Where text is written, prefix methods get worse as they grow.",
        source="paper, Section 5.5, Table 15",
        statistic=f"{_GROWTH}by how much the test loss is lower, paired by seed; both methods.",
        files=runs_of("table15"),
        judge=compared(_falls(_PREFIXES), written=True),
        high=0,
        margin=NAT,
        scale=NATS,
    ),
    Claim(
        key="with_prefixes",
        statement="LoRA with prefix-embedding tuning is better than LoRA alone.",
        source="paper, Section E",
        statistic=f"lora+prefix_embed minus LoRA. {BOTH}",
        files=runs_of("compare_methods"),
        judge=compared(minus("lora+prefix_embed", "lora")),
        low=0,
        margin=POINT,
    ),
    Claim(
        key="with_prefixes_text",
        statement="Where text is written, LoRA with prefix-embedding tuning is better than LoRA alone.",
        source="paper, Section E, Table 15",
        statistic=f"lora+prefix_embed minus LoRA. {BOTH_LOSS}",
        files=runs_of("table15"),
        judge=compared(minus("lora+prefix_embed", "lora"), written=True),
        low=0,
        margin=NAT,
        scale=NATS,
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
