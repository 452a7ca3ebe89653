"""Pairs of cells within a radius, and what pseudo labels say about them."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from mupvss.evaluation.counts import IGNORE


def half_disc(radius: int) -> list[tuple[int, int]]:
    """Displacements (dy, dx) of length under `radius`, one of each opposite pair: 34 for radius 5."""
    flat = [(0, dx) for dx in range(1, radius)]
    below = [(dy, dx) for dy in range(1, radius) for dx in range(1 - radius, radius) if dy * dy + dx * dx < radius * radius]
    return flat + below


@functools.lru_cache(maxsize=8)
def pair_index(height: int, width: int, radius: int) -> tuple[Tensor, Tensor]:
    """Every pair of cells of a grid within the radius, once: (first, second), flat indices int64 of equal length."""
    index = torch.arange(height * width).view(height, width)
    first, second = [], []
    for dy, dx in half_disc(radius):
        if dy >= height or abs(dx) >= width:
            continue
        left, right = max(0, -dx), width - max(0, dx)
        first.append(index[: height - dy, left:right].flatten())
        second.append(index[dy:, left + dx : right + dx].flatten())
    empty = torch.zeros(0, dtype=torch.long)
    return torch.cat([empty, *first]), torch.cat([empty, *second])


def pair_targets(labels: Tensor, radius: int) -> tuple[Tensor, Tensor, Tensor]:
    """labels (B, h, w), class ids with 0 background and 255 unsure -> (B, pairs) bool each: both background, both one object
    class, of different classes. A pair with an unsure cell is in none."""
    first, second = pair_index(labels.shape[1], labels.shape[2], radius)
    flat = labels.flatten(1)
    a, b = flat[:, first.to(flat.device)], flat[:, second.to(flat.device)]
    sure = (a != IGNORE) & (b != IGNORE)
    same = sure & (a == b)
    return same & (a == 0), same & (a > 0), sure & (a != b)
