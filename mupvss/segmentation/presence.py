"""Which classes a picture holds at all: one decision for the whole picture, which the scores of all its pixels then bear (ours).

A classifier's tags rule classes out before its maps are looked at. The segmentation network has no tags, so it learns to say
what is there, and a class it finds absent is unlikely at every pixel: p(c at a pixel) is weighed by p(c in the picture).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LEAST = 0.002
"""Share of a crop that a class must cover to count as there."""


def weighed_by_presence(logits: Tensor, presence: Tensor) -> Tensor:
    """logits (B, C + 1, h, w), the background first, and presence logits (B, C) -> logits with log p(c in the picture) added."""
    return torch.cat((logits[:, :1], logits[:, 1:] + F.logsigmoid(presence.to(logits.dtype))[:, :, None, None]), 1)


def present(labels: Tensor, classes: int) -> Tensor:
    """labels (B, H, W), class ids with 255 for unsure -> (B, classes) float32: 1 for what covers at least LEAST of the crop."""
    flat = labels.flatten(1)
    shares = torch.stack([(flat == c).float().mean(1) for c in range(1, classes + 1)], 1)
    return (shares >= LEAST).float()
