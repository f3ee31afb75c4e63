"""Which settings each method has, and what they may be: a class a method. Found without loading any of them.

What a model allows, as a rank or a number of layers, the methods themselves say.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from experiments.config import Group, setting
from experiments.names import did_you_mean
from experiments.rules import (
    Rule,
    any_text,
    below_one,
    choice,
    either,
    flag,
    listing,
    mapping,
    positive,
    text,
    whole,
)
from lora.config import InputError

JOINED = ("lora", "bitfit")  # what can be part of a combination, beside one method with a prefix
ORDERS = ("ascending", "descending", "random")


class Method(Group):
    """Settings of a method, beside its name."""

    group = "method"


@dataclass(frozen=True, kw_only=True)
class Plain(Method):
    """A method without settings."""


@dataclass(frozen=True, kw_only=True)
class Adapter(Method):
    """Adapter modules of so many dimensions."""

    bottleneck: int = setting(whole())


@dataclass(frozen=True, kw_only=True)
class AdapterDrop(Adapter):
    """Adapters in all but the first `drop` layers."""

    drop: int = setting(whole(0))


@dataclass(frozen=True, kw_only=True)
class Prompt(Method):
    """Numbers of prefix and infix tokens (paper, section 5.1)."""

    l_p: int = setting(whole(0))
    l_i: int = setting(whole(0))


@dataclass(frozen=True, kw_only=True)
class LastLayers(Method):
    """How many layers, the last ones, are trained."""

    layers: int = setting(whole())


@dataclass(frozen=True, kw_only=True)
class GaLore(Method):
    """Adam in the top r directions of each gradient, taken anew every `refresh` steps; `scale` is of the update."""

    r: int = setting(whole())
    refresh: int = setting(whole())
    scale: float = setting(positive())


@dataclass(frozen=True, kw_only=True)
class BAdam(Method):
    """Adam on `block` layers at a time, `switch` steps each, in this order."""

    switch: int = setting(whole())
    order: str = setting(choice(*ORDERS))
    block: int = setting(whole())


OPTIMIZERS: dict[str, type[GaLore] | type[BAdam]] = {"galore": GaLore, "badam": BAdam}  # beside AdamW


@dataclass(frozen=True, kw_only=True)
class Full(Method):
    """Full fine-tuning by AdamW (None), or by another optimizer, whose settings are among the method's."""

    optimizer: GaLore | BAdam | None = setting(text().or_null(), default=None)

    @classmethod
    def rules(cls) -> dict[str, Rule]:
        """With those of the optimizers, each of which has its own."""
        own = super().rules()
        return own | {name: rule.optional() for kind in OPTIMIZERS.values() for name, rule in kind.rules().items()}

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Raises InputError for an unknown optimizer, and settings of another one than that."""
        name = given.get("optimizer")
        if name is not None and (not isinstance(name, str) or name not in OPTIMIZERS):
            raise InputError(f"method.optimizer = {name!r}: choose {', '.join(OPTIMIZERS)}, or null for AdamW")
        for other, kind in OPTIMIZERS.items():
            for field in kind.rules():
                if other != name and field in given:
                    raise InputError(
                        f"method.{field} is of optimizer {other}, this one is {name or 'AdamW'}: leave it out"
                    )
        own = {field: value for field, value in given.items() if field != "optimizer"}
        return cls(optimizer=OPTIMIZERS[name].of(own) if name is not None else None)


@dataclass(frozen=True, kw_only=True)
class LoRA(Method):
    """As in `lora.config.LoRAConfig`, but weight_types one word, q+v. lr_ratio is LoRA+'s. budget: see
    `experiments.budget`; a run has none."""

    r: int | Mapping[str, int] = setting(either(whole(), mapping(whole(), least=1)), default=8)
    budget: int | str | None = setting(
        Rule("it must be a number of parameters, or as in q@20", either(whole(), text()).fits).or_null(), default=None
    )
    alpha: float | Mapping[str, float] = setting(either(positive(), mapping(positive(), least=1)), default=16.0)
    dropout: float = setting(below_one(), default=0.0)
    weight_types: str = setting(Rule("join them by +, as q+v", any_text().fits), default="q+v")
    modules: list[str] | tuple[str, ...] = setting(listing(text()), default=())
    layers: list[int] | None = setting(listing(whole(0)).or_null(), default=None)
    init: str = setting(text(), default="gaussian")
    scaling: str = setting(text(), default="standard")
    dora: bool = setting(flag(), default=False)
    lr_ratio: float | None = setting(positive().or_null(), default=None)


METHODS: dict[str, type[Method]] = {
    "adapter_d": AdapterDrop,
    "adapter_h": Adapter,
    "adapter_l": Adapter,
    "adapter_p": Adapter,
    "bitfit": Plain,
    "freeze": LastLayers,
    "frozen": Plain,
    "ft_top2": LastLayers,
    "full": Full,
    "head_only": Plain,
    "lora": LoRA,
    "norm_only": Plain,
    "prefix_embed": Prompt,
    "prefix_layer": Prompt,
}


def read(method: Mapping[str, Any]) -> dict[str, Method]:
    """The settings of a method by name; of a combination, `lora+prefix_embed`, those of each part.

    Raises InputError for an unknown method, parts that cannot be joined, and a field that no part has or that is not
    what it may be.
    """
    if not isinstance(method, Mapping):
        raise InputError(f"method = {method!r}: it must be a group of settings, its name among them")
    text().check("method.name", method.get("name"))
    names = str(method["name"]).split("+")
    for name in names:
        if name not in METHODS:
            raise InputError(f"unknown method {name!r}{did_you_mean(name, list(METHODS))} (several are joined by +)")
    rest = [name for name in names if name not in JOINED]
    joined = not rest or (len(rest) == 1 and rest[0].startswith("prefix_"))
    if len(names) > 1 and (not joined or len(set(names)) < len(names)):
        raise InputError(f"{method['name']}: only lora, bitfit and one of the prefix methods can be joined")
    known = {name: METHODS[name].rules() for name in names}
    fields = {"name", *(field for rules in known.values() for field in rules)}
    for field in method:
        if field not in fields:
            raise InputError(f"method {method['name']} has no field {str(field)!r}: it has {', '.join(sorted(fields))}")
    return {
        name: METHODS[name].of({field: method[field] for field in known[name] if field in method}) for name in names
    }


def lora(method: Mapping[str, Any]) -> LoRA | None:
    """The settings of LoRA, if it is the method or a part of it. Raises InputError as `read`."""
    found = read(method).get("lora")
    return found if isinstance(found, LoRA) else None


def optimizer(method: Mapping[str, Any]) -> GaLore | BAdam | None:
    """The settings of the optimizer that a method asks for; None: AdamW. Raises InputError as `read`."""
    found = next((one for one in read(method).values() if isinstance(one, Full)), None)
    return found.optimizer if found else None
