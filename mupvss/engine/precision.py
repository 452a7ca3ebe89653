"""Which processors compute in bfloat16. The others only imitate it, many times slower than float32."""

from __future__ import annotations

import functools

import torch

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
    return True


def _capabilities() -> dict[str, object]:
    """Older PyTorch tells one of them at most."""
    tell = getattr(torch.cpu, "get_capabilities", None)
    return dict(tell()) if tell else {"avx512_bf16": getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()}
