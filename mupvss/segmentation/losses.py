"""What teaches a segmentation network: pixels, and which classes a picture holds at all.

Pixels: cross-entropy that leaves out what is unsure and weighs the rest by its confidence; or the collision cross-entropy, which
keeps what is unsure as a soft label. Presence (ours) is one decision for the whole picture, which the scores of all its pixels
then bear: a classifier's tags rule classes out before its maps are looked at; the segmentation network has no tags, so it learns
to say what is there, and a class it finds absent is unlikely at every pixel: p(c at a pixel) is weighed by p(c in the picture).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mupvss.data.masks import IGNORE
from mupvss.ops import full_precision


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


def collision_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor,
    tags: Tensor,
    background: bool,
    mean_count: Callable[[Tensor], Tensor] = lambda count: count,
) -> Tensor:
    """Mean of -log sum_c y_c p_c over the pixels inside the picture: the probability that label and network, each drawn by its
    own probabilities, are the same class. Where y is even, nothing pulls p towards being even, as cross-entropy with it would.

    Args:
        logits: (B, L, h, w), the background first; taken to the labels' size.
        labels: (B, H, W) class ids; 255 where there is none. Such pixels are left out.
        weights: (B, H, W) in [0, 1]: y of the label. The rest is shared evenly by the picture's other tags and the background.
        tags: (B, L - 1) bool, the classes of the whole picture.
        background: Whether a pixel may belong to no class.
        mean_count: Of the number of pixels, where a batch is shared out to several processes.

    Returns:
        A scalar >= 0.
    """
    size = labels.shape[1:]
    said = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False).softmax(1)
    possible = torch.cat((torch.full_like(tags[:, :1], background), tags), 1)
    known = labels != IGNORE
    ids = labels.masked_fill(~known, 0)
    own = said.gather(1, ids[:, None])[:, 0]
    tagged = possible.gather(1, ids.flatten(1)).view_as(labels)
    others = (said * possible[:, :, None, None]).sum(1) - own * tagged
    count = possible.sum(1)[:, None, None] - tagged.long()
    sure = torch.where(count > 0, weights, 1.0)
    each = -(sure * own + (1 - sure) * others.clamp_min(0) / count.clamp_min(1)).clamp_min(1e-6).log()
    return (each * known).sum() / mean_count(known.sum().float()).clamp_min(1)


LEAST = 0.002
"""Share of a crop that a class must cover to count as there."""


def weighed_by_presence(logits: Tensor, presence: Tensor) -> Tensor:
    """logits (B, C + 1, h, w), the background first, and presence logits (B, C) -> logits with log p(c in the picture) added."""
    return torch.cat((logits[:, :1], logits[:, 1:] + F.logsigmoid(presence.to(logits.dtype))[:, :, None, None]), 1)


def presence_loss(said: Tensor, labels: Tensor, weights: Tensor, tags: Tensor) -> Tensor:
    """How badly the image-level head says what a crop shows -> scalar.

    said (B, C) logits; labels (B, H, W), class ids with 255 for unsure; weights (B, H, W), 0 outside the picture; tags (B, C)
    bool, the classes of the whole picture. Mean of -log p over classes and crops, in which what is not known counts as 0.
    """
    target = present(labels, said.shape[1])
    each = F.binary_cross_entropy_with_logits(full_precision(said), target, reduction="none")
    return (each * known(target, labels, weights, tags)).mean()


def present(labels: Tensor, classes: int) -> Tensor:
    """labels (B, H, W), class ids with 255 for unsure -> (B, classes) float32: 1 for what covers at least LEAST of the crop."""
    flat = labels.flatten(1)
    shares = torch.stack([(flat == c).float().mean(1) for c in range(1, classes + 1)], 1)
    return (shares >= LEAST).float()


def known(target: Tensor, labels: Tensor, weights: Tensor, tags: Tensor) -> Tensor:
    """Shapes as for `presence_loss`, target (B, C) from `present` -> (B, C) bool: whether the crop says if the class is there.

    A class that covers pixels is there, one that the picture is not tagged with is not. A tagged class without pixels may lie
    under those left unsure: taught as absent, it would lose recall just where the seeds doubt.
    """
    unsure = ((labels == IGNORE) & (weights > 0)).flatten(1).float().mean(1) >= LEAST
    return (target > 0) | ~tags | ~unsure[:, None]
