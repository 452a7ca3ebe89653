"""CCP, cross-class prototype loss: the prototypes of one picture exclude each other (paper, Sec. 3.2).

As printed: -sum_{i != j} log(1 - cos(P_i, P_j)). It is negative for opposed prototypes; as a mean its minimum is
-log(C / (C - 1)).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mupvss.ops import extended_log, full_precision, pairwise_cosine, part_ties

FLOOR = 1e-6
"""Below this value of 1 - cos, the logarithm is extended linearly."""


def ccp(prototypes: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """-log(1 - cos) over ordered pairs of different classes (paper, Sec. 3.2).

    Args:
        prototypes: (B, C, D) or (C, D), of any float type.
        reduction: sum: sum over the pairs, as printed for one picture, averaged over the pictures; mean: mean over both.

    Returns:
        A scalar, at least -log(C / (C - 1)) as a mean. 0, with a gradient of zero, for a single class.
    """
    p = full_precision(prototypes)
    p = p.unsqueeze(0) if p.dim() == 2 else p
    classes = p.shape[1]
    if classes < 2 or len(p) == 0:
        return p.sum() * 0
    others = ~torch.eye(classes, dtype=torch.bool, device=p.device)
    terms = -extended_log(1 - pairwise_cosine(part_ties(p)), FLOOR)[:, others]  # (B, C*(C-1))
    return terms.mean() if reduction == "mean" else terms.sum(1).mean()
