"""What computes: the name of a processor, on which a time depends, and its kind, on which the rounding does."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

BF16 = ("avx512_bf16", "amx_bf16")  # instructions that multiply matrices in bf16, each with sums of its own order


def name(device: torch.device) -> str:
    """The name that a device's maker gave it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    known = Path("/proc/cpuinfo")
    names = [line for line in known.read_text().splitlines() if line.startswith("model name")] if known.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def kind(device: torch.device) -> str:
    """The name, and of a CPU the instructions that torch and oneDNN use there. On one kind, with as many threads and in
    one precision, a run has one result, bit for bit; on others it may be rounded otherwise."""
    if device.type != "cpu":
        return name(device)
    known = torch.cpu.get_capabilities()
    return ", ".join([name(device), torch.backends.cpu.get_cpu_capability(), *(one for one in BF16 if known.get(one))])
