"""Random crop, flip and brightness for training, each drawn from a generator that belongs to one picture of one step."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageEnhance


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


def augment(
    image: Image.Image,
    side: int,
    area: tuple[float, float],
    flip: bool,
    brightness: float,
    rng: np.random.Generator,
) -> Image.Image:
    """RGB picture -> a random view of side x side pixels."""
    box = random_crop_box(image.size, area, rng)
    image = image.resize((side, side), Image.Resampling.BICUBIC, box=box)
    if flip and rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if brightness > 0:
        image = ImageEnhance.Brightness(image).enhance(rng.uniform(1 - brightness, 1 + brightness))
    return image
