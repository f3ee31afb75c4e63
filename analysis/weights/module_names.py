"""Names of one module in several models: a head, a wrapper or a multimodal model puts other parts before them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from transformers.models.auto import modeling_auto

# Parts before a text model's own names that do not say which of several towers it is
NEUTRAL = frozenset({"model", "base_model", "language_model", "text_model", "transformer", "module", "auto_model"})
# Names of text models, which one with a head puts before those of its body (bert.encoder…)
ARCHITECTURES = frozenset(
    name.replace("-", "_")
    for table in (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    )
    for name in table
)
_SENTENCES = "0.auto_model."  # of sentence-transformers

# Ends of the names of what stands beside codes that are no weights by themselves
_QUANTISED = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|SCB|absmax|nested_absmax|quant_map|nested_quant_map|quant_state\..+|W_q|"
    r"weight_scale(_inv|_2)?|weight_packed|weight_zero_point|input_scale|weight_format)$|_(scale_inv|blocks|scales)$"
)


def canonical(name: str, prefixes: Collection[str] = ARCHITECTURES) -> str:
    """A module's name less what may stand before it: NEUTRAL parts, and those in `prefixes`."""
    parts = name.removeprefix(_SENTENCES).split(".")
    while len(parts) > 1 and (parts[0] in NEUTRAL or parts[0] in prefixes):
        parts = parts[1:]
    return ".".join(parts)


def unique(names: Mapping[str, str]) -> dict[str, str]:
    """canonical name -> name, for a mapping from names to canonical ones; what is there twice is left out."""
    found: dict[str, list[str]] = {}
    for name, own in names.items():
        found.setdefault(own, []).append(name)
    return {own: same[0] for own, same in found.items() if len(same) == 1}


def quantised(names: Iterable[str]) -> list[str]:
    """The names that say that a checkpoint's weights are codes: scales, zero points, packed numbers."""
    return [name for name in names if _QUANTISED.search(name)]
