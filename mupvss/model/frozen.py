"""Keeping the first stages of a CNN as they were pretrained: usual in weak supervision, and much of the cost of training."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


def freeze(modules: Iterable[nn.Module]) -> None:
    """No gradients, and batch normalisation by the statistics it came with."""
    for module in modules:
        module.requires_grad_(False)
        module.eval()
