"""Random crop, flip and brightness for training, each drawn from a generator that belongs to one picture of one step.

The crop is made where the picture is read, since pictures differ in size. The rest is done for a whole batch at once on the
device that trains (`Views.images`): bytes take a quarter of the transfer that floats would need.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mupvss.data.preprocess import normalise_pixels


@dataclass(frozen=True)
class View:
    """A crop, and the augmentations that are still to be applied to it."""

    pixels: np.ndarray
    """(S, S, 3) uint8."""
    mirrored: bool
    brightness: float
    """Factor; 1 leaves the picture as it is."""


@dataclass(frozen=True)
class Views:
    """A batch of views."""

    pixels: Tensor
    """(B, S, S, 3) uint8."""
    mirrored: Tensor
    """(B,) bool."""
    brightness: Tensor
    """(B,) float32."""

    @classmethod
    def of(cls, views: Sequence[View]) -> Views:
        return cls(
            torch.from_numpy(np.stack([view.pixels for view in views])),
            torch.tensor([view.mirrored for view in views]),
            torch.tensor([view.brightness for view in views], dtype=torch.float32),
        )

    def pin_memory(self) -> Views:
        """Called by the loader: from pinned memory a GPU can fetch while it computes."""
        return Views(self.pixels.pin_memory(), self.mirrored.pin_memory(), self.brightness.pin_memory())

    def to(self, device: torch.device) -> Views:
        return Views(*(getattr(self, f.name).to(device, non_blocking=True) for f in dataclasses.fields(self)))

    def images(self) -> Tensor:
        """(B, 3, S, S) float32, normalised, on the views' device."""
        bright = (self.pixels.float() * self.brightness.view(-1, 1, 1, 1)).clamp(0, 255).floor()
        return mirror(normalise_pixels(bright), self.mirrored)


def mirror(x: Tensor, mirrored: Tensor) -> Tensor:
    """(B, ..., W) -> the same, with the entries of the batch that `mirrored` (B,) marks flipped left to right."""
    return torch.where(mirrored.view(-1, *[1] * (x.ndim - 1)), x.flip(-1), x)


def random_crop_box(
    size: tuple[int, int], area: tuple[float, float], rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Box (left, top, right, bottom) of a random share of the picture (width, height), aspect ratio 3/4 to 4/3."""
    width, height = size
    for _ in range(10):
        target = width * height * rng.uniform(*area)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = math.sqrt(target * ratio), math.sqrt(target / ratio)
        if w <= width and h <= height:
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, top, left + w, top + h
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def random_look(flip: bool, brightness: float, rng: np.random.Generator) -> tuple[bool, float]:
    """-> whether the view is mirrored, and the factor on its brightness, from 1 - brightness to 1 + brightness."""
    mirrored = flip and rng.random() < 0.5
    return mirrored, rng.uniform(1 - brightness, 1 + brightness) if brightness > 0 else 1.0


def random_view(
    image: Image.Image,
    side: int,
    area: tuple[float, float],
    flip: bool,
    brightness: float,
    rng: np.random.Generator,
) -> View:
    """RGB picture -> a random view of side x side pixels."""
    box = random_crop_box(image.size, area, rng)
    crop = image.resize((side, side), Image.Resampling.BICUBIC, box=box)
    return View(np.array(crop), *random_look(flip, brightness, rng))
