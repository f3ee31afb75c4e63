"""What quantised weights take, by formula."""

import math

import torch


def stored_bytes(kind: str, d: int, k: int, dtype: torch.dtype = torch.bfloat16) -> int:
    """Bytes of all `quantized.tensors` of a weight (d, k) in a layer of `kind` that computes in `dtype`."""
    size, groups = d * k, math.ceil(d * k / 64)
    return {
        # A byte for each scale, an fp32 for 256 of these; a table of each, and the mean of the scales, in fp32.
        "nf4": math.ceil(size / 2) + groups + 4 * (math.ceil(groups / 256) + 256 + 16 + 1),
        "int8": size + 4 * d,
        "int2": size // 4 + 2 * groups * dtype.itemsize,  # scales and zero points are in `dtype`
    }[kind]
