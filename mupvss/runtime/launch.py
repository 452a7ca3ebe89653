"""What must be known or set before PyTorch is loaded. Nothing here imports PyTorch, since that takes seconds."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = "1000"
"""How often a waiting thread looks for work before it sleeps: a few microseconds. GNU's OpenMP looks 300,000 times by default, so
a thread that waits for one without a core keeps its own core from others: beside one busy process, training falls to a third of
its speed. This value costs 7 % alone and gains 46 % beside another process (docs/benchmarks.md, `benchmarks/waiting.py`)."""
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
"""Environment variables by which users set how threads wait; if one of them is set, nothing is changed."""


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Makes the threads of this process sleep soon when they wait for each other. It must run before PyTorch is loaded, whose
    OpenMP reads the environment once; so the command does it, and `import mupvss` never does."""
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS


def fall_back_to_the_cpu(environment: MutableMapping[str, str] = os.environ) -> None:
    """Uses the CPU for the few operations that PyTorch lacks on Apple's GPU. This too must run before PyTorch is loaded."""
    environment.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def started_by_torchrun() -> bool:
    """Whether this is one of several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def processes_on_this_computer() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
