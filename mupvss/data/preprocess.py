"""The one definition of preprocessing, from pictures to normalised tensors, for training and search."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""ImageNet's mean and standard deviation, RGB, for pictures in [0, 1]."""
MAX_SEARCH_PIXELS = 640_000
"""Larger pictures are reduced for the search: attention grows with the square of the pixels, and networks never saw such
sizes."""


def normalise(image: Image.Image) -> Tensor:
    """RGB picture -> (3, H, W) float32 of mean 0 and variance 1 over ImageNet."""
    return normalise_pixels(torch.from_numpy(np.array(image)).unsqueeze(0))[0]


def normalise_pixels(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) in [0, 255], bytes or floats -> (B, 3, H, W) float32, on the same device."""
    mean, std = (torch.tensor(values, device=pixels.device) for values in (MEAN, STD))
    return ((pixels.float() / 255.0 - mean) / std).permute(0, 3, 1, 2).contiguous()


def resize_for_search(image: Image.Image, scale: float, patch_size: int) -> Image.Image:
    """The picture at `scale` times its size, both sides rounded to whole patches, at least one."""
    width, height = (max(1, round(side * scale / patch_size)) * patch_size for side in image.size)
    return image if (width, height) == image.size else image.resize((width, height), Image.Resampling.BICUBIC)


def working_scale(size: tuple[int, int], wanted: int) -> float:
    """(width, height) -> the factor that brings a picture to an area of wanted x wanted pixels. wanted 0: the picture keeps its
    size, or is reduced if it is very large."""
    return wanted / math.sqrt(size[0] * size[1]) if wanted else 1 / reduction(size)


def reduction(size: tuple[int, int], limit: int = MAX_SEARCH_PIXELS) -> int:
    """(width, height) -> the integer by which both sides are divided, so that at most `limit` pixels are left; mostly 1."""
    return max(1, math.ceil(math.sqrt(size[0] * size[1] / limit)))


def reduced(image: Image.Image, factor: int) -> Image.Image:
    """The picture averaged over factor x factor pixels; sides are rounded up."""
    return image if factor == 1 else image.reduce(factor)
