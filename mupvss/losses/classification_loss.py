"""CLS: multi-label soft margin between class scores and tags."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mupvss.ops import full_precision


def classification(scores: Tensor, tags: Tensor) -> Tensor:
    """-[t log sigmoid(s) + (1 - t) log sigmoid(-s)], mean over classes and pictures (paper, Sec. 3.2).

    Args:
        scores: (B, C), unbounded logits.
        tags: (B, C) of 0 and 1.

    Returns:
        A scalar, at least 0.
    """
    scores = full_precision(scores)
    return F.multilabel_soft_margin_loss(scores, tags.to(scores.dtype))
