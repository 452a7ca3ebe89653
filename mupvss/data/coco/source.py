"""COCO 2014 and 2017, or any data set in their layout, as a data set whose samples are looked up when asked for."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mupvss.config.schema import DataConfig
from mupvss.data.coco.index import CocoIndex, open_index
from mupvss.data.coco.masks import paint
from mupvss.data.images import read_image
from mupvss.data.sample import Dataset, LazySamples, Sample
from mupvss.errors import DataError
from mupvss.evaluation.counts import IGNORE


def load_coco(config: DataConfig, split: str) -> Dataset:
    """The pictures listed in annotations/instances_SPLIT.json. Tags: every category annotated in a picture, crowds too."""
    annotations = config.root / "annotations" / f"instances_{split}.json"
    index = open_index(annotations)
    names = index.categories()
    classes = config.classes or tuple(names.values())
    unknown = sorted(set(classes) - set(names.values()))
    if unknown:
        raise DataError(f"data.classes: {annotations} has no category {unknown[0]!r}; it has {', '.join(names.values())}")
    if len(classes) >= IGNORE:
        raise DataError(f"{annotations}: {len(classes)} classes; masks of 8 bits hold at most {IGNORE - 1}, so set data.classes")
    other = 0 if config.other_classes == "background" else IGNORE
    source = _Source(
        index,
        annotations,
        pictures=config.root / split,
        tags={category: name for category, name in names.items() if name in classes},
        ids={category: _class_id(classes, name, other) for category, name in names.items()},
        keep_crowds=config.crowd == "class",
    )
    return Dataset(tuple(classes), LazySamples(range(len(index)), source.sample))


@dataclass(frozen=True)
class _Source:
    """What makes a sample of a place in the index."""

    index: CocoIndex
    annotations: Path
    pictures: Path
    tags: dict[int, str]
    """The names of those categories that are classes."""
    ids: dict[int, int]
    """Category -> what it is in a mask."""
    keep_crowds: bool

    def sample(self, place: int) -> Sample:
        entry = self.index.entry(place)
        path = self.pictures / entry.file_name
        return Sample(
            path.stem,
            str(path),
            frozenset(self.tags[category] for category in entry.categories if category in self.tags),
            functools.partial(read_image, path),
            functools.partial(self._mask, entry.image, (entry.height, entry.width), path),
            mask_origin=str(self.annotations),
        )

    def _mask(self, image: int, size: tuple[int, int], path: Path) -> np.ndarray:
        return paint(self.index.annotations(image), size, self.ids, self.keep_crowds, str(path))


def _class_id(classes: tuple[str, ...], name: str, other: int) -> int:
    return classes.index(name) + 1 if name in classes else other
