"""Spatial search: which patches resemble a prototype, M_p = P F^T (paper, Sec. 3.3)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mupvss.ops import rival_logits

SHARPNESS = 20.0
"""Factor on the cosines between a patch and the centres."""


def prototype_map(patches: Tensor, prototypes: Tensor, scale: Tensor | float = 1.0, bias: Tensor | float = 0.0) -> Tensor:
    """How well each patch resembles each prototype, max(0, scale * cos + bias) (paper, Sec. 3.3).

    Cosines are used, since raw products depend on the length of a token. With P2P's learned scale and bias, zero is where the
    search itself says that the class is absent.

    Args:
        patches: F, (B, N, D).
        prototypes: P, (B, C, D).
        scale: Factor on the cosines.
        bias: Added to them: one number, or one per class (C,).

    Returns:
        (B, C, N), at least 0.
    """
    cosine = F.normalize(prototypes.float(), dim=-1) @ F.normalize(patches.float(), dim=-1).transpose(1, 2)
    offset = bias.unsqueeze(-1) if isinstance(bias, Tensor) else bias
    return (scale * cosine + offset).relu()


def competition_map(patches: Tensor, prototypes: Tensor, rivals: Tensor) -> Tensor:
    """Share of each prototype among all classes at every patch: a softmax over cosines (ours).

    Args:
        patches: F, (B, N, D).
        prototypes: P of the classes searched for, (B, C, D).
        rivals: P of all classes, (B, A, D).

    Returns:
        (B, C, N), in [0, 1].
    """
    every = rival_logits(patches, rivals, rivals)
    return (rival_logits(patches, prototypes, rivals) - every.logsumexp(1, keepdim=True)).exp()


def centres_map(patches: Tensor, found: Tensor, other: Tensor) -> Tensor:
    """Whether a patch resembles a centre of what was found of a class more than one of what was not (ours, `centres.py`).

    Args:
        patches: F, (B, N, D).
        found: Centres of what was found, of unit length, (C, K, D).
        other: Centres of what was not found in pictures with the tag, (C, L, D).

    Returns:
        (B, C, N), in [0, 1]; a patch as near to both has 0.5.
    """
    unit = F.normalize(patches.float(), dim=-1)
    # The mean over the centres, not the sum, so that the larger number has no say.
    near, far = (
        torch.einsum("bnd,ckd->bckn", SHARPNESS * unit, part.float()).logsumexp(2) - math.log(part.shape[1])
        for part in (found, other)
    )
    return (near - far).sigmoid()
