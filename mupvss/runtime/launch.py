"""What must be known, or set, before PyTorch is loaded. Nothing here imports it: that takes seconds."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = "1000"
"""How often a thread looks for work before it sleeps: a few microseconds. By itself GNU's OpenMP looks 300,000 times, and a
thread that waits for one without a core keeps others from theirs: beside one busy process a training falls to a third. So it
costs 7 % alone and gains 46 % in company (docs/benchmarks.md, `benchmarks/waiting.py`)."""
WAITING = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")
"""How a user says how threads wait; whoever has set one of them is left alone."""


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Has the threads of this process sleep soon when they wait for each other. Only before PyTorch, whose OpenMP reads the
    environment once; so the command does it, and never `import mupvss`."""
    if not any(name in environment for name in WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS


def fall_back_to_the_cpu(environment: MutableMapping[str, str] = os.environ) -> None:
    """For the few operations that PyTorch lacks on Apple's GPU. Only before PyTorch is loaded, too."""
    environment.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")


def started_by_torchrun() -> bool:
    """Whether this is one of several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def processes_on_this_computer() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
