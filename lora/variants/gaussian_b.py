"""The other way round: A = 0 and B ~ N(0, 1/r) (Init[B] of Hayou et al. 2024, arXiv 2406.08447)."""

from lora.variants._draws import Drawn, normal

VARIANT = Drawn(__name__, B=normal)
