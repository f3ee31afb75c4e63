"""Freeze: the first layers stay as they are, the last `layers` are trained (LLaMA-Factory's finetuning_type: freeze).

It is `ft_top2` with another number of layers, as many as there is room for: of what comes before the first of them the
backward pass needs nothing. As in LLaMA-Factory embeddings, the final norm and a language model's output layer stay.
"""

from experiments.methods.ft_top2 import apply

__all__ = ["apply"]
