"""Pixel affinity: a map follows the picture's own edges, by averaging over neighbours of like colour (ours).

Each cell takes the average of its neighbours at several distances, weighed by a softmax over how alike their colours are
relative to the contrast around it; repeated. The idea is that of pixel-adaptive refinement (Araslanov & Roth 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SHARPNESS = 10.0
"""Colour differences count in tenths of the local standard deviation."""


def refine_by_pixels(maps: Tensor, image: Tensor, steps: int, distances: Sequence[int]) -> Tensor:
    """maps (C, h, w), image (3, h, w) in [0, 1] at the same size -> maps (C, h, w), averages of the old values."""
    if steps == 0 or len(maps) == 0:
        return maps
    weights = _weights(image, distances)  # (K, h, w)
    for _ in range(steps):
        old, maps = maps, torch.zeros_like(maps)
        for neighbour, weight in zip(_neighbours(old, distances), weights, strict=True):
            maps.addcmul_(neighbour, weight)
    return maps


def _weights(image: Tensor, distances: Sequence[int]) -> Tensor:
    around = torch.stack(list(_neighbours(image, distances)))  # (K, 3, h, w)
    contrast = torch.cat((around, image.unsqueeze(0))).std(0, keepdim=True)
    unlike = SHARPNESS * (around - image).abs() / (contrast + 1e-5)
    return (-unlike.mean(1)).softmax(0)


def _neighbours(x: Tensor, distances: Sequence[int]) -> Iterator[Tensor]:
    """x (C, h, w) -> the eight neighbours of each cell at each distance, each (C, h, w); edges are repeated outwards."""
    h, w = x.shape[-2:]
    margin = max(distances)
    padded = F.pad(x.unsqueeze(0), (margin,) * 4, mode="replicate")[0]
    for d in distances:
        for dy, dx in ((a, b) for a in (-d, 0, d) for b in (-d, 0, d) if a or b):
            yield padded[:, margin + dy : margin + dy + h, margin + dx : margin + dx + w]
