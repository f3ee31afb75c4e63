"""Bytes for people."""

KINDS = {
    "weights": "weights",
    "master": "fp32 copies",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "logits": "logits",
    "temporary": "temporary",
}  # the bytes of a Plan, and what they are called


def human(size: float) -> str:
    """Three digits and a decimal unit, 1 GB = 10^9 bytes: 13.5 GB, 512 B."""
    unit = 0
    while abs(size) >= 999.5 and unit < 4:
        size, unit = size / 1000, unit + 1
    digits = 0 if not unit or abs(size) >= 99.95 else 1 if abs(size) >= 9.995 else 2
    return f"{size:.{digits}f} {('B', 'kB', 'MB', 'GB', 'TB')[unit]}"
