"""Patch-wise P2P: the classifier's confident patches teach the search where a class is (ours, not the paper's).

P2P as printed learns only *whether* a class is in the picture. The patch classifier, refined by patch affinity, knows roughly
*where*; its confident patches become targets for the similarity between patch and prototype. Only tags are used.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mupvss.losses.p2p_loss import similarity
from mupvss.ops import full_precision

FOREGROUND, BACKGROUND = 0.6, 0.4
"""A patch is an object if its stretched map is above the first, background if it is below the second, and otherwise ignored."""


def confident_targets(maps: Tensor, tags: Tensor) -> tuple[Tensor, Tensor]:
    """maps (B, C, N), any range >= 0, tags (B, C) -> targets (B, C, N) of 0 and 1, and where they are used (B, C, N) bool.

    For tagged classes only. A patch that another tagged class claims more strongly is a negative for this one.
    """
    maps = full_precision(maps.detach())
    low, high = maps.amin(-1, keepdim=True), maps.amax(-1, keepdim=True)
    tagged = tags.bool().unsqueeze(-1)
    value = torch.where(tagged, (maps - low) / (high - low).clamp_min(1e-8), torch.zeros_like(maps))
    strongest = value == value.amax(1, keepdim=True)
    target = (value >= FOREGROUND) & strongest
    other = (value >= FOREGROUND) & ~strongest
    return target.float(), tagged & (target | other | (value <= BACKGROUND))


def p2p_dense(
    patches: Tensor,
    prototypes: Tensor,
    tags: Tensor,
    maps: Tensor,
    scale: Tensor | float,
    bias: Tensor | float,
    mean_count: Callable[[Tensor], Tensor] = lambda count: count,
) -> Tensor:
    """patches (B, N, D), prototypes (B, C, D), tags (B, C), teaching maps (B, C, N) >= 0 -> scalar.

    Binary cross-entropy of scale * cos + bias, averaged over the patches of each target (0 and 1) separately, so that small
    objects count as much as their surroundings. 0, with a gradient of zero, where nothing is tagged. mean_count: averages a count
    over the processes that share a batch.
    """
    target, counts = confident_targets(maps, tags)
    logits = scale * similarity(patches, prototypes) + (bias.unsqueeze(-1) if isinstance(bias, Tensor) else bias)
    loss = F.binary_cross_entropy_with_logits(logits, target.to(logits.dtype), reduction="none")
    parts = []
    for kind in (target > 0, target == 0):
        chosen = (counts & kind).to(loss.dtype)
        parts.append((loss * chosen).sum() / mean_count(chosen.sum()).clamp_min(1e-3))
    return (parts[0] + parts[1]) / 2
