"""Spatial search: which patches resemble a prototype, M_p = P F^T (paper, Sec. 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mupvss.ops import rival_logits


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
