"""ReCAM's re-activation (Chen et al. 2022): the features under one class's map must be told apart by softmax.

The sigmoid of a multi-label loss lets classes share features; a softmax over single-class features does not.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mupvss.ops.cosine import full_precision


def reactivation(patches: Tensor, patch_logits: Tensor, tags: Tensor, weight: Tensor) -> Tensor:
    """patches (B, N, D), patch_logits (B, C, N), tags (B, C), weight (C, D) of the second classifier -> scalar.

    For each tagged class: the patches weighed by its map (ReLU, divided by its greatest value, taken as given), averaged,
    classified by softmax. Mean over tagged pairs; 0, with a gradient of zero, where nothing is tagged.
    """
    patches = full_precision(patches)
    maps = full_precision(patch_logits).detach().relu()
    maps = maps / maps.amax(-1, keepdim=True).clamp_min(1e-5)
    picture, label = tags.nonzero(as_tuple=True)
    if len(label) == 0:
        return patches.sum() * 0 + weight.sum() * 0
    pooled = (maps @ patches)[picture, label] / patches.shape[1]  # (tagged, D)
    return F.cross_entropy(pooled @ weight.float().t(), label)
