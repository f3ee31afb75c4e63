"""Plain LoRA: h = W0 x + s B A x (Hu et al. 2021, eq. 3)."""

from __future__ import annotations

from lora.variants import Peft, Update


class _LoRA(Update):
    title = "LoRA"
    peft = Peft("", {})


VARIANT = _LoRA(__name__)
