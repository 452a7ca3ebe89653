"""Input and interface of all writers, and the connected regions of a mask with their outlines as polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mupvss.data.images import read_image
from mupvss.errors import MissingExtraError


@dataclass(frozen=True)
class Item:
    """One picture with its mask."""

    name: str
    """The picture as the user named it, relative, with its suffix: 'cats/1.jpg'."""
    path: Path
    """The picture's file."""
    labels: np.ndarray
    """(H, W) uint8 class ids, 0 background; 255 is unsure and belongs to no class."""
    scores: dict[str, float] = field(default_factory=dict)
    """Per class the probability that it is in the picture."""

    @property
    def stem(self) -> str:
        """The name without its suffix: 'cats/1'."""
        return str(PurePosixPath(self.name).with_suffix(""))

    def open(self) -> Image.Image:
        return read_image(self.path)


@dataclass(frozen=True)
class Options:
    """Settings that all writers share."""

    classes: tuple[str, ...]
    """Names behind the ids 1, 2, ..."""
    min_pixels: int = 16
    """Smaller connected regions are left out of objects and outlines."""
    tolerance: float = 1.0
    """Outlines may deviate from the mask's edge by this many pixels; 0: exact."""


class Writer(Protocol):
    """Takes pictures one by one, then finishes its files."""

    def add(self, item: Item) -> None: ...

    def close(self) -> None: ...


Points = np.ndarray
"""(n, 2) float: x, y in pixels from the upper left corner of the picture; a closed ring, the first point not repeated."""


@dataclass(frozen=True)
class Region:
    """A connected part of one class's pixels (touching at edges or corners)."""

    class_id: int
    class_name: str
    left: int
    top: int
    mask: np.ndarray
    """(h, w) bool, cropped to the region's box."""

    @property
    def area(self) -> int:
        return int(self.mask.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), right and bottom excluded."""
        return self.left, self.top, self.left + self.mask.shape[1], self.top + self.mask.shape[0]

    def full(self, shape: Sequence[int]) -> np.ndarray:
        """(H, W) bool: the region in its picture."""
        found = np.zeros(shape[:2], bool)
        left, top, right, bottom = self.box
        found[top:bottom, left:right] = self.mask
        return found

    def outlines(self, tolerance: float) -> list[Points]:
        """Its polygons, mostly one. Holes are joined to the outside by a cut of no width, since few formats support holes."""
        return [ring + np.array([self.left, self.top]) for ring in trace(self.mask, tolerance)]


def regions(item: Item, options: Options) -> list[Region]:
    """Regions of every class in order of class id and place."""
    cv2 = opencv()
    found = []
    for class_id in np.unique(item.labels):
        if not 1 <= class_id <= len(options.classes):
            continue
        _, marks, boxes, _ = cv2.connectedComponentsWithStats((item.labels == class_id).astype(np.uint8), connectivity=8)
        for number, (left, top, width, height, area) in enumerate(boxes.tolist()):
            if number > 0 and area >= options.min_pixels:
                mask = marks[top : top + height, left : left + width] == number
                found.append(Region(int(class_id), options.classes[class_id - 1], left, top, mask))
    return found


def trace(mask: np.ndarray, tolerance: float) -> list[Points]:
    """(h, w) bool -> rings, which follow the pixels' edges exactly at tolerance 0."""
    cv2 = opencv()
    # At twice the size, a pixel becomes four, each of which touches one of its corners.
    large = np.repeat(np.repeat(mask.astype(np.uint8), 2, 0), 2, 1)
    found, hierarchy = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = []
    for index, contour in enumerate(found):
        if hierarchy[0][index][3] >= 0:  # a hole, which is joined to its outside
            continue
        ring, hole = _simple(contour, tolerance), hierarchy[0][index][2]
        while hole >= 0:
            ring = _cut(ring, _simple(found[hole], tolerance))
            hole = hierarchy[0][hole][0]
        if len(ring) >= 3:
            rings.append(ring)
    return rings


def _simple(contour: np.ndarray, tolerance: float) -> Points:
    """Contour (n, 1, 2) at twice the size -> the corners it passes, without those that `tolerance` lets it skip. A region so thin
    that nothing would be left keeps them all."""
    corners = ((contour + 1) // 2).astype(np.float32)
    found = opencv().approxPolyDP(corners, tolerance, True)
    if len(found) < 3:
        found = opencv().approxPolyDP(corners, 0.0, True)
    return found[:, 0].astype(np.float64)


def _cut(outside: Points, hole: Points) -> Points:
    """Both as one ring, joined where they are nearest."""
    distances = ((outside[:, None] - hole[None]) ** 2).sum(-1)
    i, j = np.unravel_index(distances.argmin(), distances.shape)
    return np.concatenate((outside[: i + 1], hole[j:], hole[: j + 1], outside[i:]))


def opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise MissingExtraError("this format needs the extra 'export': pip install 'mupvss[export]'") from None
    return cv2
