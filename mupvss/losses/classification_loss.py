"""CLS: multi-label soft margin between class scores and tags."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mupvss.ops import full_precision


def classification(scores: Tensor, tags: Tensor) -> Tensor:
    """scores (B, C), unbounded logits; tags (B, C) of 0 and 1 -> scalar: mean over classes and pictures of
    -[t log sigmoid(s) + (1 - t) log sigmoid(-s)]."""
    scores = full_precision(scores)
    return F.multilabel_soft_margin_loss(scores, tags.to(scores.dtype))
