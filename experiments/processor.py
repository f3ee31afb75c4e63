"""What computes: the name of a processor, on which a time depends, and its kind, on which the rounding does."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

BF16 = ("avx512_bf16", "amx_bf16")  # instructions that multiply matrices in bf16, each with sums of its own order
ONEDNN_AT_MOST = "ONEDNN_MAX_CPU_ISA"  # an environment variable by which oneDNN leaves out newer instructions


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
    known, most = torch.cpu.get_capabilities(), os.environ.get(ONEDNN_AT_MOST)
    used = [torch.backends.cpu.get_cpu_capability(), *(one for one in BF16 if known.get(one))]
    return ", ".join([name(device), *used, *([f"oneDNN at most {most}"] if most else [])])
