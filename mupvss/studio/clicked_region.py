"""The region around a click: connected pixels that have a similar colour and a similar value in the map."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mupvss.export.regions import opencv

LONGEST = 480
"""Longest side in pixels of the copy on which regions are found."""


def region_at(picture: Image.Image, level: np.ndarray | None, x: int, y: int, reach: float) -> np.ndarray:
    """The region around a click.

    Args:
        picture: RGB picture of W x H pixels.
        level: The map of the class (H, W) in [0, 1], or None if there is none.
        x: Column of the click in pixels.
        y: Row of the click in pixels.
        reach: In [0, 1]: how much a pixel may differ in colour and level.

    Returns:
        (H, W) bool, connected, with the click inside.
    """
    cv2 = opencv()
    factor = min(1.0, LONGEST / max(picture.size))
    size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
    small = np.asarray(picture.resize(size, Image.Resampling.BOX))
    # Smooths surfaces and keeps edges.
    colours = cv2.cvtColor(cv2.bilateralFilter(small, 7, 40, 5), cv2.COLOR_RGB2LAB).astype(np.float32)
    at = (min(size[1] - 1, int(y * factor)), min(size[0] - 1, int(x * factor)))
    alike = np.linalg.norm(colours - colours[at], axis=-1) <= 6 + 60 * reach
    if level is not None:
        map_ = cv2.resize(level.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
        alike &= np.abs(map_ - map_[at]) <= 0.1 + 0.5 * reach
    _, marks = cv2.connectedComponents(alike.astype(np.uint8), connectivity=4)
    region = cv2.morphologyEx((marks == marks[at]).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
    large = cv2.resize(region, picture.size, interpolation=cv2.INTER_LINEAR if factor < 1 else cv2.INTER_NEAREST)
    found = large > 0
    found[y, x] = True
    return found
