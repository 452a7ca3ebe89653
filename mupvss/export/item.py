"""What every writer gets, and what it must do."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from PIL import Image

from mupvss.data.images import read_image


@dataclass(frozen=True)
class Item:
    """One picture with its mask."""

    name: str
    """The picture as the user named it, relative, with its suffix: 'cats/1.jpg'."""
    path: Path
    """Where it lies."""
    labels: np.ndarray
    """(H, W) uint8 class ids, 0 background; 255, unsure, belongs to no class."""
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
    """What all writers share."""

    classes: tuple[str, ...]
    """Names behind the ids 1, 2, ..."""
    min_pixels: int = 16
    """Smaller connected regions are left out of objects and outlines."""
    tolerance: float = 1.0
    """Outlines may leave the mask's edge by this many pixels; 0: every step of the edge."""


class Writer(Protocol):
    """Takes pictures one by one, then finishes its files."""

    def add(self, item: Item) -> None: ...

    def close(self) -> None: ...
