"""A ~ N(0, 1/k), B = 0 (Hu et al. 2021, section 4.1, which says only Gaussian)."""

from lora.variants._draws import Drawn, normal

VARIANT = Drawn(__name__, A=normal)
