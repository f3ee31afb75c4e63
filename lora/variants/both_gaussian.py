"""A ~ N(0, 1/k) and B ~ N(0, 1/r): training starts with the noise B A on top of W0."""

from lora.variants._draws import Drawn, normal

VARIANT = Drawn(__name__, A=normal, B=normal)
