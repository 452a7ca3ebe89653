"""Attention maps averaged over blocks without keeping them: those of large pictures would fill the memory."""

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


class TokenAttention:
    """Of tokens that stand as N patches, then C class tokens, then others: what patches and class tokens attend to.

    first: the block from which on the class tokens' attention counts.
    """

    def __init__(self, patches: int, tokens: int, first: int) -> None:
        self.n, self.m, self.first = patches, patches + tokens, first
        self.patch, self.token = RunningMean(), RunningMean()

    def add(self, block: int, weights: Tensor | None) -> None:
        """weights (B, T, T) of one block, or None where nobody asked for them."""
        if weights is None:
            return
        self.patch.add(weights[:, : self.n, : self.n])
        if block >= self.first:
            self.token.add(weights[:, self.n : self.m, : self.n])
