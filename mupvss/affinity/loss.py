"""PSA's affinity loss: pairs of one class should be alike, pairs of two classes not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mupvss.affinity.pairs import pair_index, pair_targets


def pair_affinity(features: Tensor, radius: int) -> Tensor:
    """features (B, D, h, w) -> exp(-mean |difference|) in (0, 1] for every pair within the radius (B, pairs)."""
    first, second = pair_index(features.shape[2], features.shape[3], radius)
    flat = features.flatten(2).float()
    difference = flat[:, :, first.to(flat.device)] - flat[:, :, second.to(flat.device)]
    return torch.exp(-difference.abs().mean(1))


def affinity_loss(
    affinity: Tensor, labels: Tensor, radius: int, mean_count: Callable[[Tensor], Tensor] = lambda count: count
) -> Tensor:
    """affinity (B, pairs), labels (B, h, w) -> scalar: background/4 + object/4 + different/2, each the mean over its pairs.

    A kind of pair that does not occur adds nothing; with none at all the loss is 0, with a gradient of zero.
    mean_count: the number of pairs, where a batch is shared out to several processes.
    """
    background, thing, different = pair_targets(labels, radius)
    near, far = -torch.log(affinity + 1e-5), -torch.log(1 - affinity + 1e-5)
    parts = ((background, near, 0.25), (thing, near, 0.25), (different, far, 0.5))
    terms = [weight * (loss * chosen).sum() / (mean_count(chosen.sum()) + 1e-5) for chosen, loss, weight in parts]
    return torch.stack(terms).sum()
