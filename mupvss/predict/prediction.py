"""Input and output of every predictor, whatever the network and the runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mupvss.data.images import array_to_rgb, read_image, to_rgb
from mupvss.data.masks import Box, bounding_box
from mupvss.errors import UserError
from mupvss.ops import enlarged
from mupvss.predict.calibration import Calibration, unsure

Picture = Image.Image | np.ndarray | str | Path


@dataclass(frozen=True)
class Prediction:
    """The result for one picture of H x W pixels."""

    classes: tuple[str, ...]
    """Names behind the ids 1, 2, ... of `labels`."""
    labels: np.ndarray
    """(H, W) uint8 class ids, 0 background."""
    confidence: np.ndarray
    """(H, W) float32 in [0, 1]: the best map's value, or the label's probability."""
    tags: tuple[str, ...]
    """The tags that were searched for, given or predicted; for a segmentation network, the classes that it found."""
    scores: dict[str, float]
    """Per class the probability that it is in the picture; calibrated, if the run had pictures to test on."""
    probabilities: Mapping[str, np.ndarray]
    """Per considered class, (H, W) float32 in [0, 1]: the class's map, or the probability of each pixel."""

    @property
    def unsure(self) -> tuple[str, ...]:
        """Classes whose score says neither yes nor no (0.2 to 0.8)."""
        return unsure(self.scores)

    @property
    def areas(self) -> dict[str, int]:
        """Number of pixels of each class that was found."""
        counts = np.bincount(self.labels.ravel(), minlength=len(self.classes) + 1)
        return {name: int(counts[i]) for i, name in enumerate(self.classes, 1) if counts[i]}

    @property
    def boxes(self) -> dict[str, Box]:
        """Bounding box (left, top, right, bottom) of each class that was found; right and bottom excluded."""
        return {name: bounding_box(self.mask(name)) for name in self.areas}

    def mask(self, name: str) -> np.ndarray:
        """(H, W) bool: where the class is. UserError for a class that the network does not know."""
        check_tags([name], self.classes)
        return self.labels == self.classes.index(name) + 1


class FullSize(Mapping[str, np.ndarray]):
    """Maps by class name, each enlarged to the picture's size on access, since together they may not fit into memory."""

    def __init__(self, names: Sequence[str], maps: np.ndarray, size: tuple[int, int]) -> None:
        """maps: (K, h, w) float; size: (H, W) of the picture."""
        self._places, self._maps, self._size = {name: i for i, name in enumerate(names)}, maps, size

    def __getitem__(self, name: str) -> np.ndarray:
        return enlarged(torch.from_numpy(self._maps[self._places[name]].astype(np.float32)), self._size).numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class PicturePredictor(ABC):
    """Call it with a picture, and with its tags if they are known. Each picture has a forward pass of its own, so that its result
    does not depend on others."""

    calibration: Calibration | None = None
    """Makes its scores those that were found to be right on pictures that it had not seen; None: they are as the network gives
    them."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """Names behind the ids 1, 2, ..."""

    def calibrated(self, scores: dict[str, float]) -> dict[str, float]:
        """The network's scores by class -> those that are given out."""
        return scores if self.calibration is None else self.calibration.of(scores)

    @abstractmethod
    def predict(self, picture: Image.Image, tags: Sequence[str] | None) -> Prediction:
        """An upright RGB picture and known tags -> Prediction."""

    def __call__(self, image: Picture, tags: Sequence[str] | None = None) -> Prediction:
        """Find masks in one picture.

        Args:
            image: A PIL picture, a path, or an array (H, W), (H, W, 3) RGB or (H, W, 4) RGBA, of uint8, uint16, or floats in
                [0, 1]. EXIF rotation is applied.
            tags: Names of the classes that are in the picture; every other class is ruled out. None: the network decides.

        Returns:
            The masks at the picture's own size.

        Raises:
            UserError: A tag that the network was not trained on, or an array of another shape or type.
            DataError: The file is not a picture that can be read.
        """
        if tags is not None:
            check_tags(tags, self.classes)
        return self.predict(as_picture(image), tags)

    def batch(self, images: Iterable[Picture], tags: Iterable[Sequence[str] | None] | None = None) -> Iterator[Prediction]:
        """Find masks in many pictures, one after the other, so that any number fits in memory.

        Args:
            images: As for a call.
            tags: One entry per picture, each as for a call; None: the network decides for all.

        Yields:
            One Prediction per picture, in order.
        """
        if tags is None:
            yield from (self(image) for image in images)
        else:
            yield from (self(image, known) for image, known in zip(images, tags, strict=True))


def as_picture(image: Picture) -> Image.Image:
    """-> upright RGB picture; UserError for anything else."""
    if isinstance(image, str) and image.lower().startswith(("http://", "https://")):
        raise UserError(f"{image}: nothing is fetched from the web; save the picture, and give its path or the opened picture")
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    return array_to_rgb(image) if isinstance(image, np.ndarray) else to_rgb(image)


def check_tags(tags: Sequence[str], classes: tuple[str, ...]) -> None:
    if isinstance(tags, str):
        raise UserError(f"tags is the text '{tags}'; expected a list, as in [\"{tags}\"]")
    unknown = [tag for tag in tags if tag not in classes]
    if unknown:
        raise UserError(f"unknown tag '{unknown[0]}'; this network knows {', '.join(classes)}")
