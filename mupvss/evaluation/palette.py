"""Palette PNGs in VOC's colours: the file holds class ids, a viewer shows colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mupvss.files import save_image


def voc_palette() -> np.ndarray:
    """(256, 3) uint8: VOC's colour map, where the bits of the id are spread over the three channels."""
    ids = np.arange(256)
    colours = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((ids >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def write_palette_png(path: Path, labels: np.ndarray) -> None:
    """Class ids (H, W) uint8 -> an 8-bit palette PNG."""
    image = Image.fromarray(labels.astype(np.uint8), "P")
    image.putpalette(voc_palette().ravel().tolist())
    save_image(path, image)


def write_grey_png(path: Path, values: np.ndarray) -> None:
    """(H, W) uint8 -> an 8-bit grey PNG."""
    save_image(path, Image.fromarray(values))
