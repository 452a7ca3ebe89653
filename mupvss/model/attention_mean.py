"""The mean over blocks of attention maps, without keeping them: those of large pictures would fill the memory."""

from __future__ import annotations

from torch import Tensor


class RunningMean:
    def __init__(self) -> None:
        self.sum: Tensor | None = None
        self.count = 0

    def add(self, part: Tensor) -> None:
        """part: equal shapes at every call."""
        self.sum = part if self.sum is None else self.sum + part
        self.count += 1

    @property
    def value(self) -> Tensor | None:
        """None before the first part."""
        return None if self.sum is None else self.sum / self.count
