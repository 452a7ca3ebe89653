"""P2P, patch-to-prototype loss: the search itself classifies, which teaches patches to resemble their prototype.

As printed: s_ij = cos(F_i, P_j), zero where s_ij <= threshold, summed over the patches, with a multi-label loss against the tags.
A sum of non-negative numbers cannot say "absent" (its loss stays above log 2), and it grows with the picture. Our version pools
by GWRP, whose meaning does not change with the number of patches, and learns a scale and a bias.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mupvss.losses.classification_loss import classification
from mupvss.ops import Pooling, full_precision, pooled


def similarity(patches: Tensor, prototypes: Tensor) -> Tensor:
    """patches (B, N, D), prototypes (B, C, D) -> cosines (B, C, N) in [-1, 1]."""
    f = F.normalize(full_precision(patches), dim=-1)
    p = F.normalize(full_precision(prototypes), dim=-1)
    return p @ f.transpose(1, 2)


def over_threshold(scores: Tensor, threshold: float) -> Tensor:
    """scores (B, C, N) -> zero at or below the threshold, except for the best patch of each class.

    Without this exception, a tagged class whose patches are all below the threshold would never get a gradient.
    """
    keep = (scores > threshold) | (scores == scores.amax(-1, keepdim=True))
    return scores * keep


def p2p(
    patches: Tensor,
    prototypes: Tensor,
    tags: Tensor,
    threshold: float | None = None,
    how: Pooling = "gwrp",
    scale: Tensor | float = 1.0,
    bias: Tensor | float = 0.0,
    decay: float = 0.995,
    reference_patches: int = 784,
    attention: Tensor | None = None,
) -> Tensor:
    """Classification by scale * pool(cosines) + bias (paper, Sec. 3.2). As printed: threshold tau, how "sum", scale 1, bias 0.

    Args:
        patches: (B, N, D).
        prototypes: (B, C, D).
        tags: (B, C) of 0 and 1.
        threshold: Cosines at or below it count as zero, except the best patch of each class. None: no threshold.
        how: Pooling over the patches.
        scale: Factor on the pooled cosines.
        bias: Added to them: one number, or one per class (C,).
        decay: Decay per rank of GWRP, for `reference_patches` patches.
        reference_patches: Number of patches that `decay` is given for. 0: use it for any number.
        attention: What the prototypes attend to, (B, C, N), for the pooling of that name.

    Returns:
        A scalar, at least 0.
    """
    best = pooled_similarity(patches, prototypes, threshold, how, decay, reference_patches, attention)
    return classification(scale * best + bias, tags)


def pooled_similarity(
    patches: Tensor,
    prototypes: Tensor,
    threshold: float | None,
    how: Pooling,
    decay: float,
    reference_patches: int,
    attention: Tensor | None,
) -> Tensor:
    """How much of each prototype is in the picture: the cosines pooled over the patches, (B, C). Arguments as for `p2p`."""
    scores = similarity(patches, prototypes)
    if threshold is not None:
        scores = over_threshold(scores, threshold)
    return pooled(scores, how, decay, reference_patches, attention)
