"""One picture through the network at several sizes, mirrored too, and the maps brought together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mupvss.config.schema import SearchConfig
from mupvss.data.preprocess import normalise, resize_for_search
from mupvss.model.features import Features
from mupvss.runtime.device import autocast
from mupvss.search.affinity import refine_by_pixels
from mupvss.search.maps import MAPS, REFINED, joined, parts_of


def canvas_size(width: int, height: int, stride: int) -> tuple[int, int]:
    """(h, w) of the canvas, one cell per stride x stride pixels, for a picture of width x height pixels."""
    return -(-height // stride), -(-width // stride)


@torch.no_grad()
def search_maps(
    network: nn.Module,
    image: Image.Image,
    classes: Sequence[int],
    kinds: Sequence[str],
    config: SearchConfig,
    patch_size: int,
    train_size: int,
) -> dict[str, Tensor]:
    """RGB picture -> per kind the maps (len(classes), h, w) in [0, 1], float32 on the CPU, on the picture's canvas.

    classes: indices from 0; train_size: side of the training pictures in pixels. The picture and its mirror share a
    batch. Each scale's maps are stretched to [0, 1] before they are averaged, and the average is stretched once more. Joined
    kinds are made of the finished ones, at last.
    """
    size = canvas_size(*image.size, config.canvas_stride)
    if not classes:
        return {kind: torch.zeros(0, *size) for kind in kinds}
    sums = {kind: torch.zeros(len(classes), *size) for kind in parts_of(kinds)}
    prototypes = global_prototypes(network, image, config, patch_size, train_size) if config.global_prototypes else None
    for scale in config.scales:
        features = _features(network, image, scale, config, patch_size, need_attention=True)
        if prototypes is not None and features.prototypes is not None:
            features = dataclasses.replace(features, prototypes=prototypes.expand_as(features.prototypes))
        chosen = _only(features, classes)
        for kind, total in sums.items():
            total += _to_canvas(MAPS[kind](chosen, config), features.grid, size)
    return joined(_along_edges({kind: stretch(total) for kind, total in sums.items()}, image, config), kinds)


def _along_edges(maps: dict[str, Tensor], image: Image.Image, config: SearchConfig) -> dict[str, Tensor]:
    """Maps in [0, 1] on the canvas -> the same, those of refined kinds drawn to the picture's own edges."""
    refined = [kind for kind in maps if kind in REFINED]
    if not refined:
        return maps
    stacked = torch.cat([maps[kind] for kind in refined])  # all kinds share the picture's weights
    small = image.resize((stacked.shape[-1], stacked.shape[-2]), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.array(small, np.float32) / 255).permute(2, 0, 1)
    drawn = refine_by_pixels(stacked, pixels, config.pixel_steps, config.pixel_distances).chunk(len(refined))
    return maps | {kind: stretch(part) ** config.gamma for kind, part in zip(refined, drawn, strict=True)}


def global_prototypes(
    network: nn.Module, image: Image.Image, config: SearchConfig, patch_size: int, train_size: int
) -> Tensor | None:
    """Prototypes (1, C, D) of unit length from the whole picture, at the number of patches the network was trained with.

    Mean over picture and mirror. None for a network without prototypes.
    """
    scale = train_size / math.sqrt(image.width * image.height)
    features = _features(network, image, scale, config, patch_size, need_attention=False)
    if features.prototypes is None:
        return None
    return F.normalize(F.normalize(features.prototypes.float(), dim=-1).mean(0, keepdim=True), dim=-1)


def _features(
    network: nn.Module, image: Image.Image, scale: float, config: SearchConfig, patch_size: int, need_attention: bool
) -> Features:
    tensor = normalise(resize_for_search(image, scale, patch_size))
    batch = torch.stack((tensor, tensor.flip(-1))) if config.flip else tensor.unsqueeze(0)
    device = next(network.parameters()).device
    with autocast(device, config.precision):
        return network(batch.to(device), need_attention=need_attention)


def stretch(maps: Tensor) -> Tensor:
    """(C, h, w) to [0, 1], each map by its own minimum and maximum; a constant map becomes 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-8)


def _only(features: Features, classes: Sequence[int]) -> Features:
    """The same pass with only some classes' maps, so that nothing is computed for the rest."""
    index = torch.as_tensor(list(classes), dtype=torch.long, device=features.patches.device)

    def pick(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:, index]

    return dataclasses.replace(
        features,
        patch_logits=features.patch_logits[:, index],
        patch_score=features.patch_score[:, index],
        prototypes=pick(features.prototypes),
        decision_bias=None if features.decision_bias is None else features.decision_bias[index],
        token_score=pick(features.token_score),
        reactivated_logits=pick(features.reactivated_logits),
        class_attention=pick(features.class_attention),
        block_tokens=None,
    )


def _to_canvas(maps: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """maps (1 or 2, C, N), the second mirrored -> (C, h, w) in [0, 1]."""
    square = maps.float().unflatten(-1, grid)
    merged = square[0] if len(square) == 1 else (square[0] + square[1].flip(-1)) / 2
    resized = F.interpolate(merged.unsqueeze(0), size=size, mode="bilinear", align_corners=False)[0]
    return stretch(resized).cpu()
