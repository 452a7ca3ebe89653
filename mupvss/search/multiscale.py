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


Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels."""


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
        mirror share a batch. Each scale's maps, put together from its tiles if there are any, are stretched to [0, 1] before they
        are averaged, and the average is stretched once more. Joined kinds are made last, from the finished ones.
    """
    size = canvas_size(*image.size, cell_size(image.size, search))
    if not classes:
        return {kind: torch.zeros(0, *size) for kind in kinds}
    sums = {kind: torch.zeros(len(classes), *size) for kind in parts_of(offered, kinds)}
    common = whole_picture(network, image, search, options, patch_size, train_size, shared)
    base = working_scale(image.size, search.size) if search.size else 1.0
    for scale in search.scales:
        resized = resize_for_search(image, base * scale, patch_size)
        boxes = windows(resized.size, search.tile, patch_size)
        parts: dict[str, list[Tensor]] = {kind: [] for kind in sums}
        for box in boxes:
            features = views_of(network, resized.crop(box), search, need_attention=True)
            if common:
                widened: Any = {name: value.expand_as(getattr(features, name)) for name, value in common.items()}
                features = dataclasses.replace(features, **widened)
            chosen = only_classes(features, classes)
            for kind, found in parts.items():
                found.append(upright(offered[kind](chosen, search, options), features.grid))
        for kind, total in sums.items():
            total += to_canvas(put_together(parts[kind], boxes, patch_size), size)
    refined = [kind for kind in sums if offered[kind].refined]
    drawn = along_edges({kind: stretch(total) for kind, total in sums.items()}, refined, image, search)
    return joined(offered, drawn, kinds)


def windows(size: tuple[int, int], tile: int, patch_size: int) -> list[Box]:
    """(width, height) of a picture of whole patches -> boxes of whole patches that cover it and overlap by a quarter or more.
    tile: their side in pixels, at least one patch; 0: one box."""
    side = max(1, tile // patch_size)

    def starts(patches: int) -> list[int]:
        if not tile or patches <= side:
            return [0]
        count = math.ceil((patches - side) / max(1, side * 3 // 4)) + 1
        return [round(place) for place in np.linspace(0, patches - side, count)]

    columns, rows = (length // patch_size for length in size)
    wide, high = (min(side, patches) if tile else patches for patches in (columns, rows))
    boxes = [(x, y, x + wide, y + high) for y in starts(rows) for x in starts(columns)]
    return [(x * patch_size, y * patch_size, a * patch_size, b * patch_size) for x, y, a, b in boxes]


def put_together(parts: Sequence[Tensor], boxes: Sequence[Box], patch_size: int) -> Tensor:
    """Maps (C, h, w) of the tiles in these boxes -> those of the picture. Where tiles overlap, values count less towards a tile's
    rim."""
    if len(parts) == 1:
        return parts[0]
    high, wide = (max(box[side] for box in boxes) // patch_size for side in (3, 2))
    total, weights = torch.zeros(len(parts[0]), high, wide), torch.zeros(high, wide)
    for part, (left, top, right, bottom) in zip(parts, boxes, strict=True):
        rows, columns = slice(top // patch_size, bottom // patch_size), slice(left // patch_size, right // patch_size)
        inner = [torch.minimum(torch.arange(1, n + 1), torch.arange(n, 0, -1)).float() for n in part.shape[1:]]
        weight = inner[0].unsqueeze(1) * inner[1]
        total[:, rows, columns] += weight * part.cpu()
        weights[rows, columns] += weight
    return total / weights


def along_edges(maps: dict[str, Tensor], refined: list[str], image: Image.Image, search: SearchOptions) -> dict[str, Tensor]:
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
    return shared(views_of(network, resize_for_search(image, scale, patch_size), search, need_attention=False), options)


def views_of(network: nn.Module, image: Image.Image, search: SearchOptions, need_attention: bool) -> Features:
    """Features of a picture of whole patches and its mirror, B = 2."""
    tensor = normalise(image)
    batch = torch.stack((tensor, tensor.flip(-1)))
    device = next(network.parameters()).device
    with autocast(device, search.precision):
        return network(batch.to(device), need_attention=need_attention)


def stretch(maps: Tensor) -> Tensor:
    """(C, h, w) to [0, 1], each map by its own minimum and maximum; a constant map becomes 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low).clamp_min(1e-8)


def only_classes(features: Features, classes: Sequence[int]) -> Features:
    """The features of only some classes, so that nothing is computed for the rest."""
    index = torch.as_tensor(list(classes), dtype=torch.long, device=features.patches.device)

    def pick(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[:, index]

    def of_class(x: Tensor | None) -> Tensor | None:
        return None if x is None else x[index]

    return dataclasses.replace(
        features,
        patch_logits=features.patch_logits[:, index],
        patch_score=features.patch_score[:, index],
        prototypes=pick(features.prototypes),
        rivals=features.prototypes,
        decision_bias=of_class(features.decision_bias),
        found_centres=of_class(features.found_centres),
        other_centres=of_class(features.other_centres),
        token_score=pick(features.token_score),
        reactivated_logits=pick(features.reactivated_logits),
        class_attention=pick(features.class_attention),
        block_tokens=None,
    )


def upright(maps: Tensor, grid: tuple[int, int]) -> Tensor:
    """maps (1 or 2, C, N), the second mirrored -> their mean (C, h, w), one value per patch."""
    square = maps.float().unflatten(-1, grid)
    return square[0] if len(square) == 1 else (square[0] + square[1].flip(-1)) / 2


def to_canvas(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(C, h, w) of patches -> (C, *size) in [0, 1]."""
    return stretch(F.interpolate(maps.unsqueeze(0), size=size, mode="bilinear", align_corners=False)[0]).cpu()
