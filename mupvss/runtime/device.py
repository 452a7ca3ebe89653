"""The device and the precision of computations."""

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
    """auto: the first GPU if there is one (Apple's too), else the CPU; with several processes, each gets its own GPU."""
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
    """The name of a GPU; for any other device its type, as in cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def own_cores() -> int:
    """This process's share of the CPU cores of this computer, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes().local_count)


def prepare(seed: int, threads: int) -> None:
    """Seeds every random generator, and sets threads and precision of this process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads or own_cores())
    torch.set_float32_matmul_precision(float32_product())


def float32_product() -> str:
    """Argument for `torch.set_float32_matmul_precision`. "medium" lets a CPU use oneDNN's matrix product, up to twice as fast on
    AMD processors, with an error of about 1e-7. On processors with units for bfloat16 it would use those, with an error of about
    1e-3, so there it is "highest": fp32 must mean float32 on every processor."""
    return "highest" if has_bf16(torch.device("cpu")) else "medium"


UNITS = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")
"""Names of the instruction sets for bfloat16 in `torch.cpu.get_capabilities`; the last two are ARM's."""


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """precision: fp32, or bf16, which falls back to float32 where the device has no units for bfloat16."""
    return torch.autocast(device.type, torch.bfloat16, enabled=computed_in(device, precision) == "bf16")


def computed_in(device: torch.device, precision: str) -> str:
    """bf16 or fp32: the precision that `autocast` uses on this device."""
    return "bf16" if precision == "bf16" and has_bf16(device) else "fp32"


@functools.cache
def has_bf16(device: torch.device) -> bool:
    """Whether the device has units for bfloat16: NVIDIA's GPUs from Ampere on, AMD's processors from Zen 4 and Intel's Xeons from
    Sapphire Rapids. A processor with only AVX2 multiplies matrices 200 times slower in bfloat16 than in float32, and so does any
    other where PyTorch is limited to AVX2 (ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA)."""
    if device.type == "cuda":
        return torch.version.hip is not None or torch.cuda.get_device_properties(device).major >= 8
    if device.type == "cpu":
        units = any(_capabilities().get(unit) for unit in UNITS)
        return units and torch.backends.mkldnn.is_available() and os.environ.get("ATEN_CPU_CAPABILITY") != "avx2"
    return False  # Apple's GPUs have it only in part, depending on generation and operation


def _capabilities() -> dict[str, object]:
    """The processor's capabilities; older versions of PyTorch report at most one of UNITS."""
    tell = getattr(torch.cpu, "get_capabilities", None)
    return dict(tell()) if tell else {"avx512_bf16": getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()}
