"""Affinity at work: one picture's maps, walked over its affinity."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mupvss.affinity.build import AffinityNetwork
from mupvss.affinity.loss import pair_affinity
from mupvss.affinity.pairs import pair_index
from mupvss.affinity.random_walk import random_walk, transition
from mupvss.config.schema import AffinityConfig
from mupvss.data.preprocess import normalise, reduced, reduction, resize_for_search
from mupvss.engine.precision import autocast
from mupvss.model.build import Network
from mupvss.search.multiscale import stretch
from mupvss.search.seeds import Seeds

PATCH_POWER = 1.0
"""Cosines of patches are taken as they are; beta of the walk sharpens them."""


@torch.no_grad()
def walked(
    seeds: Seeds,
    image: Image.Image,
    network: AffinityNetwork | Network,
    config: AffinityConfig,
    multiple: int,
    device: torch.device,
) -> Seeds:
    """The seeds with their maps averaged over random walks and stretched to [0, 1] again.

    network: of affinity.kind, or the classifier itself for the untrained kind `patch`; multiple: sides of the picture are
    rounded to it.
    """
    if len(seeds.ids) == 0:
        return seeds
    small = reduced(image, reduction(image.size))
    tensor = normalise(resize_for_search(small, 1.0, multiple)).unsqueeze(0).to(device)
    with autocast(device, "bf16" if device.type == "cuda" else "fp32"):
        affinity, grid = _patch(network, tensor, config) if config.kind == "patch" else _learned(network, tensor, config)
    operator = transition(affinity, *grid, config.radius, config.beta)
    maps = torch.from_numpy(seeds.maps.astype(np.float32)).to(device)
    coarse = F.interpolate(maps.unsqueeze(0), size=grid, mode="bilinear", align_corners=False)[0]
    spread = random_walk(coarse, operator, config.steps)
    back = F.interpolate(spread.unsqueeze(0), size=maps.shape[1:], mode="bilinear", align_corners=False)[0]
    return Seeds(seeds.ids, stretch(back).cpu().numpy(), seeds.size, seeds.stride)


def _learned(network, tensor: Tensor, config: AffinityConfig) -> tuple[Tensor, tuple[int, int]]:  # type: ignore[no-untyped-def]
    features = network(tensor)
    return pair_affinity(features, config.radius)[0], (features.shape[2], features.shape[3])


def _patch(network, tensor: Tensor, config: AffinityConfig) -> tuple[Tensor, tuple[int, int]]:  # type: ignore[no-untyped-def]
    """Cosines between patches within the radius, negative ones zero."""
    out = network(tensor)
    unit = F.normalize(out.patches[0].float(), dim=-1)
    first, second = (side.to(unit.device) for side in pair_index(*out.grid, config.radius))
    return (unit[first] * unit[second]).sum(-1).relu() ** PATCH_POWER, out.grid
