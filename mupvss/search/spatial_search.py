"""Spatial search: which patches resemble a prototype, M_p = P F^T (paper, Sec. 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def prototype_map(patches: Tensor, prototypes: Tensor) -> Tensor:
    """patches F (B, N, D), prototypes P (B, C, D) -> how well each patch resembles each prototype (B, C, N) in [0, 1].

    Cosines, since raw products follow the length of a token. Each map is stretched by its own minimum and maximum: what
    all patches of a picture share says nothing about where the object is, and where the cosine's zero lies says nothing
    either (cut off there, maps of large pictures vanish).
    """
    cosine = F.normalize(prototypes.float(), dim=-1) @ F.normalize(patches.float(), dim=-1).transpose(1, 2)
    low, high = cosine.amin(-1, keepdim=True), cosine.amax(-1, keepdim=True)
    return (cosine - low) / (high - low).clamp_min(1e-8)
