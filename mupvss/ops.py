"""Small functions of tensors that losses, networks and the search share: cosines that stay differentiable, weighted rank pooling,
and the best of several maps at a larger size."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, arange

COMPETITION = 20.0
"""Factor on the cosines before a softmax over the classes."""
Pooling = Literal["gwrp", "mean", "sum", "attention"]
TIE = 1e-3
"""Relative length of the offset that separates tied vectors."""


def full_precision(x: Tensor) -> Tensor:
    """Keeps float64, and converts anything narrower to float32."""
    return x if x.dtype == torch.float64 else x.float()


def part_ties(x: Tensor) -> Tensor:
    """x (..., K, D) -> the same, with vectors that equal another of the K moved apart.

    Two equal vectors have a cosine gradient of exactly zero, so no loss on cosines could ever separate them. Each tied vector
    gets a fixed offset of 0.1 % of its length along an axis of its own, for the loss only.
    """
    unit = F.normalize(x.detach(), dim=-1)
    same = (unit @ unit.transpose(-2, -1)) > 1 - 1e-6
    tied = same.sum(-1) > 1  # (..., K); every vector equals itself
    if not tied.any():
        return x
    k, d = x.shape[-2:]
    axes = torch.zeros(k, d, dtype=x.dtype, device=x.device)
    axes[torch.arange(k), torch.arange(k) % d] = 1.0
    length = x.detach().norm(dim=-1, keepdim=True).clamp_min(1e-6)
    return x + tied.unsqueeze(-1) * TIE * length * axes


def pairwise_cosine(x: Tensor) -> Tensor:
    """x (..., K, D) -> cosines (..., K, K)."""
    unit = F.normalize(x, dim=-1)
    return unit @ unit.transpose(-2, -1)


def rival_logits(patches: Tensor, prototypes: Tensor, rivals: Tensor) -> Tensor:
    """How well each patch fits each prototype, for a softmax over the classes (ours).

    Prototypes have much in common, so they are centred on the mean of all classes first.

    Args:
        patches: F, (B, N, D).
        prototypes: P of some classes, (B, C, D).
        rivals: P of all classes, (B, A, D).

    Returns:
        (B, C, N), in [-COMPETITION, COMPETITION].
    """
    mean = F.normalize(full_precision(rivals), dim=-1).mean(1, keepdim=True)
    apart = F.normalize(F.normalize(full_precision(prototypes), dim=-1) - mean, dim=-1)
    return COMPETITION * apart @ F.normalize(full_precision(patches), dim=-1).transpose(1, 2)


def extended_log(x: Tensor, floor: float) -> Tensor:
    """log x for x >= floor; below, its tangent at the floor: finite, and with a gradient everywhere."""
    tangent = torch.log(torch.full_like(x, floor)) + (x - floor) / floor
    return torch.where(x >= floor, torch.log(x.clamp_min(floor)), tangent)


def rescaled_decay(decay: float, reference: int, patches: int) -> float:
    """Decay per rank for `patches` patches that emphasises the same *share* of them as `decay` does for `reference`.

    decay ** (reference / patches): 0.996 at 784 patches is 0.984 at 196. A reference of 0 keeps the decay.
    """
    return decay if reference == 0 else decay ** (reference / patches)


def gwrp(scores: Tensor, decay: float) -> Tensor:
    """Pools scores (..., N) over their last dimension to (...): sorted descending, weighted decay**rank, normalised."""
    weights = decay ** arange(scores.shape[-1], device=scores.device, dtype=scores.dtype)
    ranked = scores.sort(dim=-1, descending=True).values
    return (ranked * weights).sum(-1) / weights.sum()


def weighted_mean(scores: Tensor, weights: Tensor) -> Tensor:
    """Scores and weights (..., N), weights at least 0 -> the mean (...), in float32: products of attentions underflow in less."""
    weights = full_precision(weights)
    return (full_precision(scores) * weights).sum(-1) / weights.sum(-1).clamp_min(1e-12)


def pooled(
    scores: Tensor,
    how: Pooling = "gwrp",
    decay: float = 0.995,
    reference_patches: int = 784,
    attention: Tensor | None = None,
) -> Tensor:
    """Scores (B, C, N) pooled over the patches -> (B, C). attention (B, C, N): the weights of the pooling of that name."""
    if how == "attention":
        if attention is None:
            raise ValueError("pooling by attention needs the attention")
        return weighted_mean(scores, attention)
    if how == "sum":
        return scores.sum(-1)
    if how == "mean":
        return scores.mean(-1)
    return gwrp(scores, rescaled_decay(decay, reference_patches, scores.shape[-1]))


def enlarged(one: Tensor, size: tuple[int, int]) -> Tensor:
    """One map (h, w) -> (H, W), bilinear."""
    if tuple(one.shape) == size:
        return one
    return F.interpolate(one[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]


def best_enlarged(maps: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """maps (K, h, w), K >= 1 -> the highest value at each pixel of (H, W), and the place of its map, uint8. The maps are enlarged
    one by one, so that the memory does not grow with their number."""
    value = enlarged(maps[0], size).clone()
    place = torch.zeros(size, dtype=torch.uint8)
    for number in range(1, len(maps)):
        other = enlarged(maps[number], size)
        better = other > value
        value[better] = other[better]
        place[better] = number
    return value, place
