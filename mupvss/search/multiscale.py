"""Runs one picture through the network at several sizes, also mirrored, and merges the maps."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mupvss.data.preprocess import normalise, resize_for_search, working_scale
from mupvss.model.features import Features
from mupvss.options import SearchOptions
from mupvss.runtime.device import autocast
from mupvss.search.affinity import refine_by_pixels
from mupvss.search.maps import Map, joined, parts_of

Shared = Callable[[Features, Any], Mapping[str, Tensor]]


def canvas_size(width: int, height: int, stride: int) -> tuple[int, int]:
    """(h, w) of the canvas, one cell per stride x stride pixels, for a picture of width x height pixels."""
    return -(-height // stride), -(-width // stride)


def cell_size(size: tuple[int, int], search: SearchOptions) -> int:
    """Side of a canvas cell in pixels of a picture of (width, height): `canvas_stride`, which with `search.size` is that of the
    picture at its working size, so that small pictures get finer maps and large ones do not get more cells."""
    return max(1, round(search.canvas_stride / working_scale(size, search.size))) if search.size else search.canvas_stride


@torch.no_grad()
def search_maps(
    network: nn.Module,
    image: Image.Image,
    classes: Sequence[int],
    kinds: Sequence[str],
    offered: Mapping[str, Map],
    search: SearchOptions,
    options: Any,
    patch_size: int,
    train_size: int,
    shared: Shared | None = None,
) -> dict[str, Tensor]:
    """Searches one picture.

    Args:
        network: images (B, 3, H, W), normalised, and need_attention -> Features.
        image: RGB picture.
        classes: indices from 0 of the classes to search for.
        kinds: which maps, of those that the method offers.
        offered: the method's maps by name.
        search: scales, affinities and canvas.
        options: the method's own options of its search.
        patch_size: sides of the network's input are multiples of this, in pixels.
        train_size: side of the training pictures in pixels.
        shared: see `Method.shared`.

    Returns:
        Per kind the maps (len(classes), h, w) in [0, 1], float32 on the CPU, on the picture's canvas. The picture and its
        mirror share a batch. Each scale's maps are stretched to [0, 1] before they are averaged, and the average is stretched
        once more. Joined kinds are made last, from the finished ones.
    """
    size = canvas_size(*image.size, cell_size(image.size, search))
    if not classes:
        return {kind: torch.zeros(0, *size) for kind in kinds}
    sums = {kind: torch.zeros(len(classes), *size) for kind in parts_of(offered, kinds)}
    common = whole_picture(network, image, search, options, patch_size, train_size, shared)
    base = working_scale(image.size, search.size) if search.size else 1.0
    for scale in search.scales:
        features = _features(network, image, base * scale, search, patch_size, need_attention=True)
        if common:
            widened: Any = {name: value.expand_as(getattr(features, name)) for name, value in common.items()}
            features = dataclasses.replace(features, **widened)
        chosen = _only(features, classes)
        for kind, total in sums.items():
            total += _to_canvas(offered[kind](chosen, search, options), features.grid, size)
    refined = [kind for kind in sums if offered[kind].refined]
    drawn = _along_edges({kind: stretch(total) for kind, total in sums.items()}, refined, image, search)
    return joined(offered, drawn, kinds)


def _along_edges(maps: dict[str, Tensor], refined: list[str], image: Image.Image, search: SearchOptions) -> dict[str, Tensor]:
    """Maps in [0, 1] on the canvas -> the same, with those of refined kinds aligned with the picture's edges."""
    if not refined:
        return maps
    stacked = torch.cat([maps[kind] for kind in refined])  # all kinds share the picture's weights
    small = image.resize((stacked.shape[-1], stacked.shape[-2]), Image.Resampling.BOX)
    pixels = torch.from_numpy(np.array(small, np.float32) / 255).permute(2, 0, 1)
    drawn = refine_by_pixels(stacked, pixels, search.pixel_steps, search.pixel_distances).chunk(len(refined))
    return maps | {kind: stretch(part) ** search.gamma for kind, part in zip(refined, drawn, strict=True)}


@torch.no_grad()
def whole_picture(
    network: nn.Module,
    image: Image.Image,
    search: SearchOptions,
    options: Any,
    patch_size: int,
    train_size: int,
    shared: Shared | None,
) -> Mapping[str, Tensor]:
    """What every scale shares (`Method.shared`), from one pass over the whole picture at the number of patches that the network
    was trained with."""
    if shared is None:
        return {}
    scale = train_size / math.sqrt(image.width * image.height)
    return shared(_features(network, image, scale, search, patch_size, need_attention=False), options)


def _features(
    network: nn.Module, image: Image.Image, scale: float, search: SearchOptions, patch_size: int, need_attention: bool
) -> Features:
    """Features of the picture and its mirror, B = 2."""
    tensor = normalise(resize_for_search(image, scale, patch_size))
    batch = torch.stack((tensor, tensor.flip(-1)))
    device = next(network.parameters()).device
    with autocast(device, search.precision):
        return network(batch.to(device), need_attention=need_attention)


def stretch(maps: Tensor) -> Tensor:
    """(C, h, w) to [0, 1], each map by its own minimum and maximum; a constant map becomes 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-8)


def _only(features: Features, classes: Sequence[int]) -> Features:
    """The features of only some classes, so that nothing is computed for the rest."""
    index = torch.as_tensor(list(classes), dtype=torch.long, device=features.patches.device)

    def pick(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:, index]

    return dataclasses.replace(
        features,
        patch_logits=features.patch_logits[:, index],
        patch_score=features.patch_score[:, index],
        prototypes=pick(features.prototypes),
        rivals=features.prototypes,
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
