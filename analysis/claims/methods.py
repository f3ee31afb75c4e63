"""Claims about LoRA beside full fine-tuning, adapters, BitFit, prefixes, and its own variants."""

from collections.abc import Iterator, Sequence

import pandas as pd

from analysis.claims.engine import Claim
from analysis.claims.measures import Choose, Pair, best, compared, method, runs_of
from analysis.kit import tables

POINT = 0.01
NEAR = 1.25  # the factor within which numbers of parameters are about equal
BOTH = "Each at the setting that is best on validation data; test scores, paired by seed."
TABLES = runs_of("compare_methods", "table3", "table4", "table13", "table14", "table15")
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
        command=command,
    )


_COMPARE = f"make compare-methods PRESET={{preset}} ARGS='method={EVERY_METHOD}'"

CLAIMS = [
    Claim(
        key="as_good_as_full",
        statement="LoRA matches or beats full fine-tuning: it is at most a point below.",
        source="paper, Section 5, Tables 2 to 4",
        statistic=f"LoRA minus full fine-tuning. {BOTH}",
        files=TABLES,
        judge=compared(minus("lora", "full")),
        low=-POINT,
    ),
    Claim(
        key="above_adapters",
        statement="LoRA is better than adapters with as many parameters.",
        source="paper, Section 5, Tables 2 and 3",
        statistic=f"LoRA minus the best adapter that has, within a factor of {NEAR}, as many parameters. {BOTH}",
        files=runs_of("compare_methods", "scaling", "table3", "table4", "table13", "table14"),
        judge=compared(_adapters),
        low=0,
    ),
    Claim(
        key="bitfit_below",
        statement="BitFit, which trains the biases alone, is below LoRA.",
        source="paper, Section 5, Table 2",
        statistic=f"BitFit minus LoRA. {BOTH}",
        files=runs_of("compare_methods", "scaling"),
        judge=compared(minus("bitfit", "lora")),
        high=0,
    ),
    Claim(
        key="prefixes_fall",
        statement="Prefix methods get worse as they grow.",
        source="paper, Section 5.5, Figure 2, Table 15",
        statistic="The largest size minus the best of the others, chosen on validation data; test scores, paired by "
        "seed.",
        files=runs_of("scaling", "table15"),
        judge=compared(_falls(["prefix_embed", "prefix_layer"])),
        high=0,
    ),
    Claim(
        key="with_prefixes",
        statement="LoRA with prefix-embedding tuning is better than LoRA alone.",
        source="paper, Section E, Table 15",
        statistic=f"lora+prefix_embed minus LoRA. {BOTH}",
        files=runs_of("compare_methods", "table15"),
        judge=compared(minus("lora+prefix_embed", "lora")),
        low=0,
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
