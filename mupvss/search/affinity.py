"""Affinity refinement: a map is spread over patches that belong together, M_ref = M A (paper, Sec. 3.3).

Figure 4 of the paper draws two affinities: between patch features, A_p = F F^T, and the self-attention. Rows are
normalised, so that a refined value is an average over a patch's like.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from mupvss.ops.cosine import full_precision

Kind = Literal["patch", "attention", "both"]


def patch_affinity(patches: Tensor, power: float) -> Tensor:
    """patches (B, N, D) -> cosines between patches, negative ones zero, to the power, rows summing to 1: (B, N, N)."""
    unit = F.normalize(full_precision(patches), dim=-1)
    return _rows((unit @ unit.transpose(1, 2)).relu() ** power)


def attention_affinity(attention: Tensor) -> Tensor:
    """Self-attention between patches, mean over heads and blocks (B, N, N) -> rows summing to 1."""
    return _rows(attention)


def affinity(kind: Kind, patches: Tensor, attention: Tensor | None, power: float) -> Tensor:
    """The (B, N, N) operator of one kind; both: the product entry by entry, normalised."""
    if kind == "patch":
        return patch_affinity(patches, power)
    if attention is None:
        raise ValueError(f"affinity '{kind}' needs the network's attention; call it with need_attention=True")
    if kind == "attention":
        return attention_affinity(attention)
    return _rows(patch_affinity(patches, power) * attention)


def refine(maps: Tensor, operators: Iterable[Tensor]) -> Tensor:
    """maps (B, C, N), operators (B, N, N) with rows summing to 1 -> each patch the average over its row, one after the other."""
    for operator in operators:
        maps = maps @ operator.transpose(1, 2)
    return maps


def _rows(matrix: Tensor) -> Tensor:
    return matrix / matrix.sum(-1, keepdim=True).clamp_min(1e-12)
