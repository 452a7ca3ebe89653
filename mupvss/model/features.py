"""The output of a network, whatever the method, and the mean of its attention over blocks."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Features:
    """One forward pass. B pictures, C classes, N = h*w patches, width D."""

    grid: tuple[int, int]
    """(h, w) of the patches."""
    patches: Tensor
    """F: last block's patch tokens after the final norm (B, N, D)."""
    patch_logits: Tensor
    """Class activation maps (B, C, N), unbounded."""
    patch_score: Tensor
    """Pooled patch logits (B, C)."""
    prototypes: Tensor | None = None
    """P: last block's prototypes after the final norm (B, C, D); None for a method without them."""
    rivals: Tensor | None = None
    """The prototypes of all classes, where `prototypes` holds only those that are searched for (B, C of all, D)."""
    decision_scale: Tensor | None = None
    """Learned factor on the cosine of patch and prototype, a scalar; with the bias, P2P's decision."""
    decision_bias: Tensor | None = None
    """Learned bias per class (C,)."""
    found_centres: Tensor | None = None
    """What was found of each class in all pictures, of unit length (C, K, D); None before they were gathered."""
    other_centres: Tensor | None = None
    """What was not found there in pictures with the tag (C, L, D)."""
    token_score: Tensor | None = None
    """Mean over D of the prototypes or class tokens before the final norm (B, C); None for a method without them."""
    block_tokens: Tensor | None = None
    """MCTformer's class tokens after every block (L, B, C, D)."""
    reactivated_logits: Tensor | None = None
    """ReCAM's class activation maps (B, C, N)."""
    patch_attention: Tensor | None = None
    """Self-attention between patches, mean over heads and blocks (B, N, N), rows sum to at most 1; None unless asked for, and
    always for a CNN."""
    class_attention: Tensor | None = None
    """Attention from the prototypes or class tokens to the patches, mean over heads and later blocks (B, C, N); None unless asked
    for."""


class RunningMean:
    def __init__(self) -> None:
        self.sum: Tensor | None = None
        self.count = 0

    def add(self, part: Tensor) -> None:
        """part: of the same shape at every call."""
        self.sum = part if self.sum is None else self.sum + part
        self.count += 1

    @property
    def value(self) -> Tensor | None:
        """None before the first part."""
        return None if self.sum is None else self.sum / self.count


class TokenAttention:
    """Collects what patches and class tokens attend to. Tokens are ordered as N patches, then C class tokens, then others.

    first: the first block whose class-token attention is used.
    """

    def __init__(self, patches: int, tokens: int, first: int) -> None:
        self.n, self.m, self.first = patches, patches + tokens, first
        self.patch, self.token = RunningMean(), RunningMean()

    def add(self, block: int, weights: Tensor | None) -> None:
        """weights (B, T, T) of one block, or None if they were not asked for."""
        if weights is None:
            return
        self.patch.add(weights[:, : self.n, : self.n])
        if block >= self.first:
            self.token.add(weights[:, self.n : self.m, : self.n])


def first_attention_block(skip: float, depth: int) -> int:
    """The first block whose class attention is used: in earlier blocks, the tokens have not yet found their class."""
    return min(depth - 1, int(skip * depth))
