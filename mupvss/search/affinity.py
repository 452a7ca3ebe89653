"""Affinity refinement: a map is spread over patches and pixels that belong together.

Over patches, M_ref = M A (paper, Sec. 3.3). The paper's Figure 4 shows two affinities: between patch features, A_p = F F^T, and
the self-attention. Rows are normalised, so that a refined value is an average over similar patches.

Over pixels (ours), so that a map follows the picture's own edges: each cell takes the average of its neighbours at several
distances, weighted by a softmax over the similarity of their colours relative to the local contrast; this is repeated. The idea
is that of pixel-adaptive refinement (Araslanov & Roth 2020).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mupvss.ops import full_precision

Kind = Literal["patch", "attention", "both"]


def patch_affinity(patches: Tensor, power: float) -> Tensor:
    """Cosines between patches, negative ones set to zero, to a power (paper, Sec. 3.3: A_p).

    Args:
        patches: (B, N, D).
        power: Power of the cosines.

    Returns:
        (B, N, N); rows sum to 1.
    """
    unit = F.normalize(full_precision(patches), dim=-1)
    return _rows((unit @ unit.transpose(1, 2)).relu() ** power)


def attention_affinity(attention: Tensor) -> Tensor:
    """Self-attention between patches, mean over heads and blocks (B, N, N) -> rows summing to 1."""
    return _rows(attention)


def affinity(kind: Kind, patches: Tensor, attention: Tensor | None, power: float) -> Tensor:
    """The (B, N, N) operator of one kind; both: the entry-wise product, normalised."""
    if kind == "patch":
        return patch_affinity(patches, power)
    if attention is None:
        raise ValueError(f"affinity '{kind}' needs the network's attention; call it with need_attention=True")
    if kind == "attention":
        return attention_affinity(attention)
    return _rows(patch_affinity(patches, power) * attention)


def refine(maps: Tensor, operators: Iterable[Tensor]) -> Tensor:
    """maps (B, C, N), operators (B, N, N) with rows summing to 1, applied in turn -> each patch is the average over its row."""
    for operator in operators:
        maps = maps @ operator.transpose(1, 2)
    return maps


def _rows(matrix: Tensor) -> Tensor:
    return matrix / matrix.sum(-1, keepdim=True).clamp_min(1e-12)


SHARPNESS = 10.0
"""Colour differences are measured in tenths of the local standard deviation."""


def refine_by_pixels(maps: Tensor, image: Tensor, steps: int, distances: Sequence[int]) -> Tensor:
    """Average maps over neighbouring pixels of similar colour (ours).

    Args:
        maps: (C, h, w).
        image: (3, h, w) RGB in [0, 1].
        steps: Number of averaging steps. 0: return the maps as they are.
        distances: Distances of the neighbours, in cells.

    Returns:
        (C, h, w), within the range of the old values.
    """
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
