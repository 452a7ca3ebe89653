"""What torchrun tells each of the processes it starts. Nothing here needs PyTorch, which takes seconds to load."""

from __future__ import annotations

import os


def started_by_torchrun() -> bool:
    """Whether this is one of several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def processes_on_this_computer() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
