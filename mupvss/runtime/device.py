"""Where and in which precision the numbers are computed."""

from __future__ import annotations

import functools
import os
import random

import numpy as np
import torch

from mupvss.errors import UserError
from mupvss.runtime.launch import started_by_torchrun
from mupvss.runtime.processes import processes


def pick_device(name: str) -> torch.device:
    """auto: the first GPU if there is one, Apple's too; with several processes, each its own."""
    if name in ("auto", "cuda") and started_by_torchrun() and torch.cuda.is_available():
        return torch.device("cuda", processes().local_rank)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device is '{name}'; expected auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device is '{name}', but this computer has no usable GPU; set device = \"auto\"")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"device is '{name}', but PyTorch finds no GPU of Apple's here; set device = \"auto\"")
    return device


def device_name(device: torch.device) -> str:
    """What a GPU calls itself; for anything else its type, as in cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def own_cores() -> int:
    """This process's share of the CPU cores of this computer, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes().local_count)


def prepare(seed: int, threads: int) -> None:
    """Seeds every generator and sets the numeric modes of one process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads or own_cores())
    torch.set_float32_matmul_precision(float32_product())


def float32_product() -> str:
    """What `torch.set_float32_matmul_precision` is given: medium, which lets a CPU use oneDNN's matrix product, up to twice as
    fast on AMD processors, at an error of some 1e-7. Where there are units for bfloat16 it would use those, at an error of some
    1e-3, so highest there: fp32 is to mean float32 on every processor."""
    return "highest" if has_bf16(torch.device("cpu")) else "medium"


UNITS = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")
"""What processors with instructions for bfloat16 have, in the words of `torch.cpu.get_capabilities`; the last two are of ARM."""


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """precision: fp32, or bf16, which is float32 too where the device does not compute in bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computed_in(device, precision) == "bf16")


def computed_in(device: torch.device, precision: str) -> str:
    """bf16 or fp32: what `autocast` makes of the wish on this device."""
    return "bf16" if precision == "bf16" and has_bf16(device) else "fp32"


@functools.cache
def has_bf16(device: torch.device) -> bool:
    """Whether it has units for bfloat16, as NVIDIA's GPUs have from Ampere, AMD's processors from Zen 4 and Intel's Xeons from
    Sapphire Rapids on. A processor with AVX2 alone multiplies matrices 200 times slower in bfloat16 than in float32."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_properties(device).major >= 8
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and any(_capabilities().get(unit) for unit in UNITS)
    return False  # Apple's GPUs have it in part only, by generation and by operation


def _capabilities() -> dict[str, object]:
    """Older PyTorch tells one of them at most."""
    tell = getattr(torch.cpu, "get_capabilities", None)
    return dict(tell()) if tell else {"avx512_bf16": getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()}
