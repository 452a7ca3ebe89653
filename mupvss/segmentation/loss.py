"""Cross-entropy that leaves out what is unsure and weighs the rest by its confidence."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from mupvss.evaluation.counts import IGNORE


def segmentation_loss(
    logits: Tensor, labels: Tensor, weights: Tensor, mean_count: Callable[[Tensor], Tensor] = lambda count: count
) -> Tensor:
    """logits (B, L, h, w), labels (B, H, W) with 255 for unsure, weights (B, H, W) in [0, 1] -> scalar.

    Weighted mean over the sure pixels of the logits at the labels' size; 0, with a gradient of zero, where all are unsure.
    mean_count: the sum of the weights, where a batch is shared out to several processes.
    """
    large = F.interpolate(logits.float(), size=labels.shape[1:], mode="bilinear", align_corners=False)
    each = F.cross_entropy(large, labels, ignore_index=IGNORE, reduction="none")
    counted = weights * (labels != IGNORE)
    return (each * counted).sum() / mean_count(counted.sum()).clamp_min(1e-6)
