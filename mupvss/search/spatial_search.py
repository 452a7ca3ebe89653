"""Spatial search: which patches resemble a prototype, M_p = P F^T (paper, Sec. 3.3)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def prototype_map(patches: Tensor, prototypes: Tensor, scale: Tensor | float = 1.0, bias: Tensor | float = 0.0) -> Tensor:
    """patches F (B, N, D), prototypes P (B, C, D) -> how well each patch resembles each prototype (B, C, N), >= 0.

    Cosines, since raw products follow the length of a token, and zero where scale * cos + bias is negative: with P2P's
    learned scale and bias (C,) that is where the search itself says that the class is not there.
    """
    cosine = F.normalize(prototypes.float(), dim=-1) @ F.normalize(patches.float(), dim=-1).transpose(1, 2)
    offset = bias.unsqueeze(-1) if isinstance(bias, Tensor) else bias
    return (scale * cosine + offset).relu()
