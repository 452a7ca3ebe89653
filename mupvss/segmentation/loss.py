"""Cross-entropy that leaves out what is unsure and weighs the rest by its confidence."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mupvss.evaluation.confusion import IGNORE


def segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """logits (B, L, h, w), labels (B, H, W) with 255 for unsure, weights (B, H, W) in [0, 1] -> scalar.

    Weighted mean over the sure pixels of the logits at the labels' size; 0, with a gradient of zero, where all are unsure.
    """
    large = F.interpolate(logits.float(), size=labels.shape[1:], mode="bilinear", align_corners=False)
    each = F.cross_entropy(large, labels, ignore_index=IGNORE, reduction="none")
    counted = weights * (labels != IGNORE)
    return (each * counted).sum() / counted.sum().clamp_min(1e-6)
