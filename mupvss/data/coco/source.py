"""COCO 2014 and 2017, or any data set in their layout, as a data set whose samples are looked up when asked for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from mupvss.config.schema import DataConfig
from mupvss.data.coco.index import CocoIndex, open_index
from mupvss.data.coco.masks import paint
from mupvss.data.images import read_image
from mupvss.data.sample import Dataset, Sample
from mupvss.errors import DataError
from mupvss.evaluation.counts import IGNORE


def load_coco(config: DataConfig, split: str) -> Dataset:
    """The pictures listed in annotations/instances_SPLIT.json. Tags: every category annotated in a picture, crowds too."""
    annotations = _annotations(config, split)
    index = open_index(annotations)
    names = index.categories()
    classes = config.classes or tuple(names.values())
    unknown = sorted(set(classes) - set(names.values()))
    if unknown:
        raise DataError(f"data.classes: {annotations} has no category {unknown[0]!r}; it has {', '.join(names.values())}")
    if len(classes) >= IGNORE:
        raise DataError(f"{annotations}: {len(classes)} classes; masks of 8 bits hold at most {IGNORE - 1}, so set data.classes")
    return Dataset(tuple(classes), CocoSamples(index, split, tuple(classes), config, range(len(index))))


def _annotations(config: DataConfig, split: str) -> Path:
    return config.root / "annotations" / f"instances_{split}.json"


class CocoSamples(Sequence[Sample]):
    """Some places of an index; nothing is kept per picture."""

    def __init__(self, entries: CocoIndex, split: str, classes: tuple[str, ...], config: DataConfig, places: range) -> None:
        self.entries, self.split, self.classes, self.config, self.places = entries, split, classes, config, places
        self.names = entries.categories()
        other = 0 if config.other_classes == "background" else IGNORE
        self.ids = {category: _class_id(classes, name, other) for category, name in self.names.items()}

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, key: int) -> Sample: ...
    @overload
    def __getitem__(self, key: slice) -> CocoSamples: ...
    def __getitem__(self, key: int | slice) -> Sample | CocoSamples:
        if isinstance(key, slice):
            return CocoSamples(self.entries, self.split, self.classes, self.config, self.places[key])
        entry = self.entries.entry(self.places[key])
        path = self.config.root / self.split / entry.file_name
        return Sample(
            path.stem,
            str(path),
            frozenset(self.names[category] for category in entry.categories) & frozenset(self.classes),
            functools.partial(read_image, path),
            functools.partial(self._mask, entry.image, (entry.height, entry.width), path),
            mask_origin=str(_annotations(self.config, self.split)),
        )

    def _mask(self, image: int, size: tuple[int, int], path: Path) -> np.ndarray:
        return paint(self.entries.annotations(image), size, self.ids, self.config.crowd == "class", str(path))


def _class_id(classes: tuple[str, ...], name: str, other: int) -> int:
    return classes.index(name) + 1 if name in classes else other
