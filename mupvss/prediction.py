"""What any predictor answers, and what it takes as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mupvss.data.images import read_image


@dataclass(frozen=True)
class Prediction:
    """What was found in one picture of H x W pixels."""

    classes: tuple[str, ...]
    """Names behind the ids 1, 2, ... of `labels`."""
    labels: np.ndarray
    """(H, W) uint8 class ids, 0 background."""
    confidence: np.ndarray
    """(H, W) float32 in [0, 1]: the best map's value, or the label's probability."""
    tags: tuple[str, ...]
    """The tags that were searched for, given or predicted; of a segmentation network what it found."""
    scores: dict[str, float]
    """Per class the probability that it is in the picture."""


def as_picture(image: Image.Image | np.ndarray | str | Path) -> Image.Image:
    """A PIL picture, an RGB array (H, W, 3) uint8 or a path -> RGB picture; ValueError or DataError for anything else."""
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected an RGB array (H, W, 3) of uint8, not {image.shape} of {image.dtype}")
        return Image.fromarray(image)
    return image.convert("RGB")


def check_tags(tags: Sequence[str], classes: tuple[str, ...]) -> None:
    unknown = [tag for tag in tags if tag not in classes]
    if unknown:
        raise ValueError(f"unknown tag '{unknown[0]}'; this network knows {', '.join(classes)}")
