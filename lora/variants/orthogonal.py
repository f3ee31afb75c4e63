"""A has orthonormal rows, uniformly distributed; B = 0."""

from torch import nn

from lora.variants._draws import Drawn

VARIANT = Drawn(__name__, A=nn.init.orthogonal_)
