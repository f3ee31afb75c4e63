"""Starts with a part of W0, or of its gradient, in A and B: what they start with is taken out of the base weight."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from lora import quantized
from lora.errors import InputError
from lora.variants import Start

if TYPE_CHECKING:
    from lora.config import LoRAConfig


class Residual(Start):
    """The base weight becomes W0 - scaling * B0 A0."""

    residual = True
    matrices_alone = True

    def check(self, config: LoRAConfig) -> None:
        if config.dropout:
            raise InputError(
                f"init {self.name} needs dropout = 0, not {config.dropout}: A and B start with a part of W0"
            )

    def check_base(self, base: nn.Module) -> None:
        super().check_base(base)
        if quantized.is_quantized(base):
            raise InputError(
                f"init {self.name} takes its start out of the base weight, which is quantised here and cannot hold the "
                "rest exactly: choose loftq, or a start at B = 0"
            )
