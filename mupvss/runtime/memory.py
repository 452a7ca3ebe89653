"""The memory that this process used, on the computer and on its GPU."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import torch

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def reset_peak_memory() -> None:
    """Resets the peaks: a GPU's everywhere, the process's only on Linux; elsewhere that covers the whole process so far."""
    for gpu in _gpus():
        torch.cuda.reset_peak_memory_stats(gpu)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Largest resident memory of this process since the last reset, or of a finished worker, in MB; 0 where it is unknown."""
    if resource is None:
        return 0.0
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 1024 if sys.platform != "darwin" else 1024**2
    try:
        match = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    except OSError:
        match = None
    return max(int(match.group(1)) if match else own, workers) / unit


def gpu_memory() -> dict[str, Any]:
    """gpu_peak_mb: peak memory of this process's tensors on its GPU since the last reset, in MB; empty without a GPU."""
    taken = [torch.cuda.max_memory_allocated(gpu) for gpu in _gpus()]
    return {"gpu_peak_mb": round(max(taken) / 1024**2, 1)} if taken else {}


def _gpus() -> range:
    """All GPUs, or none until one is used. It need not be known which one this process uses: it takes nothing of the others."""
    return range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
