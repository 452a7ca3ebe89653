"""The common form in which every source provides its pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, overload

import numpy as np
from PIL import Image

T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """A picture with its tags, opened only on demand."""

    name: str
    """Unique in its data set; the stem of every file written for it."""
    origin: str
    """Its name in error messages: the user's file, or the drawing's number."""
    tags: frozenset[str]
    """Its tags among the data set's classes; a picture without any is a valid negative."""
    open_image: Callable[[], Image.Image]
    """-> RGB picture, upright."""
    open_mask: Callable[[], np.ndarray] | None = None
    """-> class ids (H, W) uint8: 0 background, 1... classes, 255 ignore. None where there is no mask."""
    open_part: Callable[[], np.ndarray] | None = None
    """-> (H, W) bool: the telling (most discriminative) parts of the objects; known for drawn scenes only."""
    mask_origin: str | None = None
    """The file that the mask comes from, so that a change is noticed; None where there is none."""
    mask_key: str | None = None
    """The labelmap.txt that says what the colours of the mask mean; None where there is none."""
    given_mask: Callable[[], np.ndarray] | None = None
    """-> class ids as in a mask: one that a person accepted or painted, to train on. None where there is none."""
    given_origin: str | None = None
    """The file of the given mask."""
    rejected: bool = False
    """Whether a person rejected the picture's mask, so that the segmentation network does not train on it."""


class LazySamples(Sequence[Sample]):
    """Samples that are made on demand and not kept, for slow sources or those of a hundred thousand pictures."""

    def __init__(self, places: range, make: Callable[[int], Sample]) -> None:
        """make: place in the source -> the sample there. It must not be a lambda, since it is sent to workers."""
        self.places, self.make = places, make

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, key: int) -> Sample: ...
    @overload
    def __getitem__(self, key: slice) -> LazySamples: ...
    def __getitem__(self, key: int | slice) -> Sample | LazySamples:
        return LazySamples(self.places[key], self.make) if isinstance(key, slice) else self.make(self.places[key])


@dataclass(frozen=True)
class Dataset:
    """Samples and the class names behind the ids 1, 2, ..."""

    classes: tuple[str, ...]
    samples: Sequence[Sample]
    notes: tuple[str, ...] = ()
    """What was left out or guessed, and what looks wrong, as sentences."""

    def tag_vector(self, sample: Sample) -> np.ndarray:
        """(C,) float32 of 0 and 1."""
        return np.array([name in sample.tags for name in self.classes], np.float32)

    def tagged(self, sample: Sample) -> list[int]:
        """Indices, from 0, of the classes that the sample is tagged with."""
        return [i for i, name in enumerate(self.classes) if name in sample.tags]


def evenly(items: Sequence[T], count: int) -> Sequence[T]:
    """`count` of the items, or all if there are fewer: the first and then every n-th, whatever they are."""
    return items[:: max(1, len(items) // count)][:count] if count else []
