"""ReCAM's re-activation (Chen et al. 2022): a softmax must recognise a class from the features under its map.

The sigmoid of a multi-label loss lets classes share features; a softmax over single-class features does not.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from mupvss.ops import full_precision


def reactivation(
    patches: Tensor,
    patch_logits: Tensor,
    tags: Tensor,
    weight: Tensor,
    mean_count: Callable[[Tensor], Tensor] = lambda count: count,
) -> Tensor:
    """patches (B, N, D), patch_logits (B, C, N), tags (B, C), weight (C, D) of the second classifier -> scalar.

    For each tagged class, the patches are weighted by its map (ReLU, divided by its maximum, without gradient), averaged and
    classified by softmax. Mean over tagged pairs; 0, with a gradient of zero, where nothing is tagged. mean_count: averages a
    count over the processes that share a batch.
    """
    patches = full_precision(patches)
    maps = full_precision(patch_logits).detach().relu()
    maps = maps / maps.amax(-1, keepdim=True).clamp_min(1e-5)
    picture, label = tags.nonzero(as_tuple=True)
    count = mean_count(tags.sum())
    pooled = (maps @ patches)[picture, label] / patches.shape[1]  # (tagged, D)
    return F.cross_entropy(pooled @ weight.to(pooled.dtype).t(), label, reduction="sum") / count.clamp_min(1e-3)
