"""CIP, cross-image prototype loss: one class's prototype agrees across the pictures of a batch (paper, Sec. 3.2).

As printed: -sum_{i != j} log cos(P_c^i, P_c^j), which is undefined where the cosine is not positive. Our form (`shifted`) is
-log((1 + cos) / 2).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from mupvss.ops import extended_log, full_precision, pairwise_cosine

FLOOR = {"shifted": 1e-3, "literal": 0.05}
"""Below these arguments, the logarithm is extended linearly, so that exactly the bad pairs keep a gradient."""


def cip(
    prototypes: Tensor,
    form: Literal["shifted", "literal"] = "shifted",
    reduction: Literal["mean", "sum"] = "mean",
) -> Tensor:
    """-log of the (shifted) cosine over ordered pairs of different pictures, class by class (paper, Sec. 3.2).

    Args:
        prototypes: (B, C, D), of any float type.
        form: shifted: log((1 + cos) / 2), defined everywhere; literal: log cos, as printed.
        reduction: Mean over the pairs, or their sum, as printed.

    Returns:
        A scalar, at least 0. 0, with a gradient of zero, for a single picture.
    """
    p = full_precision(prototypes).transpose(0, 1)  # (C, B, D)
    counts = (~torch.eye(p.shape[1], dtype=torch.bool, device=p.device)).expand(p.shape[0], -1, -1)
    if not counts.any():
        return p.sum() * 0
    cosine = pairwise_cosine(p)[counts]
    terms = -extended_log((1 + cosine) / 2 if form == "shifted" else cosine, FLOOR[form])
    return terms.mean() if reduction == "mean" else terms.sum()
