"""Where and how the numbers are computed."""

from __future__ import annotations

import os
import random

import numpy as np
import torch

from mupvss.engine.processes import processes
from mupvss.engine.torchrun import started_by_torchrun


def pick_device(name: str) -> torch.device:
    """auto: the first GPU if there is one; with several processes, each its own."""
    if name in ("auto", "cuda") and started_by_torchrun() and torch.cuda.is_available():
        return torch.device("cuda", processes().local_rank)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device is '{name}'; expected auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is '{name}', but this computer has no usable GPU; set device = \"auto\"")
    return device


def device_name(device: torch.device) -> str:
    """What a GPU calls itself; for anything else its type, as in cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def own_cores() -> int:
    """This process's share of the CPU cores of this computer, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    return max(1, cores // processes().local_count)


def prepare(seed: int, threads: int) -> None:
    """Seeds every generator and sets the numeric modes of one process."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(threads or own_cores())
    # Lets the CPU use oneDNN's matrix product, up to twice as fast on AMD processors, at an error of some 1e-7.
    torch.set_float32_matmul_precision("medium")
