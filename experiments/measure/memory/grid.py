"""Which training steps are measured, by preset."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from experiments.measure.memory import compose
from experiments.measure.memory.contenders import ALL_LINEAR, Traits, traits
from experiments.measure.memory.setup import Setup

if TYPE_CHECKING:
    from experiments.models import Runtime

MODELS = {"smoke": ("minilm",), "quick": ("minilm",), "desk": ("minilm", "smollm2"), "paper": ("minilm", "smollm2")}
# Rows and tokens, from few to many, of a classifier and of a language model, whose targets are half of a row.
SIZES = {False: ((4, 32), (16, 32), (4, 128), (16, 128)), True: ((2, 64), (8, 64), (2, 256), (8, 256))}
USUAL = 2  # the size at which methods are compared


class Case(NamedTuple):
    """A method's config with some fields, at some of the sizes."""

    method: str
    fields: tuple[str, ...] = ()
    sizes: tuple[int, ...] = (USUAL,)


_FULL, _LORA, _ALL = Case("full"), Case("lora", ("method.r=8",)), f"method.weight_types={ALL_LINEAR}"
AGAIN = "runtime.checkpointing=true"


def _cases(preset: str, known: Traits) -> list[Case]:
    if preset == "smoke":
        return [_FULL._replace(sizes=(0,)), _LORA._replace(sizes=(0,))]
    ends = (0, 3)
    cases = [case._replace(sizes=ends) for case in (_FULL, _LORA)]
    cases += [Case(case.method, (*case.fields, AGAIN), ends) for case in (_FULL, _LORA)]
    if preset == "quick":
        return cases
    cases += [case._replace(sizes=(1, 2)) for case in (_FULL, _LORA)]
    cases += [Case("lora", (f"method.r={r}",)) for r in (1, 64)]
    cases += [Case("lora", (f"method.r={r}", _ALL)) for r in (8, 64)]
    few = "norm_only" if known.writes_text else "bitfit"  # Llama has no biases
    rivals = [Case(name) for name in ("adapter_h", "prefix_layer", few, "ft_top2", "badam")]
    rivals.append(Case("galore", ("method.refresh=1",)))
    cases += rivals + [Case(case.method, (*case.fields, AGAIN)) for case in rivals if case.method != few]
    cases += [Case("lora", ("method.r=8", f"model.quantization={kind}")) for kind in ("nf4", "int8", "int2")]
    return [
        *cases,
        *(Case("lora", (_ALL, f"model.quantization={kind}", AGAIN)) for kind in ("nf4", "int8")),
        Case("full", ("training.state_precision=bf16",)),
    ]


def setups(preset: str, models: Sequence[str], runtime: Runtime) -> list[Setup]:
    """The setups of a preset. Raises InputError as `compose.composed`."""
    cases = [(model, case) for model in models for case in _cases(preset, traits(model))]
    return [_setup(model, case, size, runtime) for model, case in cases for size in case.sizes]


def usual(model: str, runtime: Runtime) -> Setup:
    """Full fine-tuning of a model at the size at which methods are compared. Raises InputError as `setups`."""
    return _setup(model, _FULL, USUAL, runtime)


def _setup(model: str, case: Case, size: int, runtime: Runtime) -> Setup:
    known = traits(model)
    fields = [field.replace(ALL_LINEAR, known.weight_types) for field in case.fields]
    (plain,) = compose.composed(model, [case.method], fields)
    batch, length = SIZES[known.writes_text][size]
    return dataclasses.replace(
        plain,
        batch=batch,
        length=length,
        targets=length // 2 if known.writes_text else None,
        precision="bf16" if runtime.dtype.itemsize == 2 else "fp32",
        device=runtime.device.type,
    )
