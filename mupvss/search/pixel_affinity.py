"""Pixel affinity: a map follows the picture's own edges, by averaging over neighbours of like colour (ours).

Each cell takes the average of its neighbours at several distances, weighed by a softmax over how alike their colours are
relative to the contrast around it; repeated. The idea is that of pixel-adaptive refinement (Araslanov & Roth 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SHARPNESS = 10.0
"""Colour differences count in tenths of the local standard deviation."""


def refine_by_pixels(maps: Tensor, image: Tensor, steps: int, distances: Sequence[int]) -> Tensor:
    """maps (C, h, w), image (3, h, w) in [0, 1] at the same size -> maps (C, h, w), averages of the old values."""
    if steps == 0 or len(maps) == 0:
        return maps
    weights = _weights(image, distances)  # (K, 1, h, w)
    for _ in range(steps):
        maps = (_neighbours(maps, distances) * weights).sum(0)
    return maps


def _weights(image: Tensor, distances: Sequence[int]) -> Tensor:
    around = _neighbours(image, distances)  # (K, 3, h, w)
    contrast = torch.cat((around, image.unsqueeze(0))).std(0, keepdim=True)
    unlike = SHARPNESS * (around - image).abs() / (contrast + 1e-5)
    return (-unlike.mean(1, keepdim=True)).softmax(0)


def _neighbours(x: Tensor, distances: Sequence[int]) -> Tensor:
    """x (C, h, w) -> the eight neighbours of each cell at each distance (K, C, h, w); edges are repeated outwards."""
    h, w = x.shape[-2:]
    parts = []
    for d in distances:
        padded = F.pad(x.unsqueeze(0), (d, d, d, d), mode="replicate")[0]
        offsets = [(dy, dx) for dy in (0, d, 2 * d) for dx in (0, d, 2 * d) if (dy, dx) != (d, d)]
        parts += [padded[:, dy : dy + h, dx : dx + w] for dy, dx in offsets]
    return torch.stack(parts)
