"""COCO 2014 and 2017, or any data set in their layout; samples are looked up on demand.

Class masks follow one fixed rule. Crowd regions are painted first, as 255 (ignored) or as their class (`data.crowd`). Then come
the instances, the largest first, so that small objects on large ones stay visible; equal areas follow the order of their ids.
Pixels outside all instances are background. A picture that has a box without an outline has no mask. If a file has no outlines
at all, none of its pictures has a mask.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mupvss.data.coco.index import Annotation, CocoIndex, Id, open_index
from mupvss.data.images import read_image
from mupvss.data.masks import IGNORE
from mupvss.data.sample import Dataset, LazySamples, Sample
from mupvss.errors import DataError, MissingExtraError
from mupvss.options import CocoData


def load_coco(config: CocoData, split: str) -> Dataset:
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
    boxes = index.boxed()
    notes = [f"{annotations.name}: {boxes} of {len(index)} pictures have boxes without outlines, so no mask"] if boxes else []
    return Dataset(tuple(classes), LazySamples(range(len(index)), source.sample), tuple(notes))


@dataclass(frozen=True)
class _Source:
    """Makes the sample for a place in the index."""

    index: CocoIndex
    annotations: Path
    pictures: Path
    tags: dict[Id, str]
    """Category -> name, for the categories that are classes."""
    ids: dict[Id, int]
    """Category -> its value in a mask."""
    keep_crowds: bool

    def sample(self, place: int) -> Sample:
        entry = self.index.entry(place)
        path = self.pictures / entry.file_name
        drawn = entry.boxes == 0 and self.index.outlines > 0
        return Sample(
            entry.name,
            str(path),
            frozenset(self.tags[category] for category in entry.categories if category in self.tags),
            functools.partial(read_image, path),
            functools.partial(self._mask, entry.image, (entry.height, entry.width), path) if drawn else None,
            mask_origin=str(self.annotations) if drawn else None,
        )

    def _mask(self, image: Id, size: tuple[int, int], path: Path) -> np.ndarray:
        return paint(self.index.annotations(image), size, self.ids, self.keep_crowds, str(path))


def _class_id(classes: tuple[str, ...], name: str, other: int) -> int:
    return classes.index(name) + 1 if name in classes else other


def paint(
    annotations: Sequence[Annotation], size: tuple[int, int], ids: dict[Id, int], crowd_class: bool, origin: str
) -> np.ndarray:
    """-> class ids (H, W) uint8 for a picture of size (H, W). ids: category -> what its pixels become."""
    mask = np.zeros(size, np.uint8)
    regions = [(entry, region(entry.segmentation, size, origin)) for entry in annotations]
    for entry, inside in regions:
        if entry.crowd:
            mask[inside] = ids[entry.category] if crowd_class else IGNORE
    instances = [(entry, inside) for entry, inside in regions if not entry.crowd]
    for entry, inside in sorted(instances, key=lambda pair: -int(pair[1].sum())):
        mask[inside] = ids[entry.category]
    return mask


def region(segmentation: Any, size: tuple[int, int], origin: str) -> np.ndarray:
    """Polygons or a run-length code -> (H, W) bool. DataError, naming `origin`, for anything else."""
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, size, origin)
    return _from_polygons(segmentation, size, origin)


def _from_polygons(polygons: Any, size: tuple[int, int], origin: str) -> np.ndarray:
    try:
        from pycocotools import mask as tools
    except ImportError:
        raise MissingExtraError("COCO masks need the extra: pip install 'mupvss[datasets]'") from None
    height, width = size
    flat = []
    for polygon in polygons:
        try:
            points = np.asarray(polygon, np.float64)
        except (TypeError, ValueError):
            raise DataError(f"{origin}: a polygon is not a list of numbers") from None
        if points.ndim != 1 or len(points) < 6 or len(points) % 2 or not np.isfinite(points).all():
            raise DataError(f"{origin}: a polygon needs three or more points x1, y1, x2, y2, ...; found {points.size} numbers")
        flat.append(points.reshape(-1, 2).clip(0, (width, height)).ravel().tolist())
    if not flat:
        return np.zeros(size, bool)
    return tools.decode(tools.merge(tools.frPyObjects(flat, height, width))).astype(bool)


# pycocotools is not used: counts that do not add up make it end the process; here they raise an error that names the picture.
def _from_runs(code: dict[str, Any], size: tuple[int, int], origin: str) -> np.ndarray:
    if code.get("size") != list(size):
        raise DataError(f"{origin}: a run-length code of size {code.get('size')}, but the picture is {list(size)}")
    counts, pixels = code.get("counts"), size[0] * size[1]
    runs: list[Any] = _unpacked(counts) if isinstance(counts, str) else list(counts) if isinstance(counts, list) else []
    if not all(isinstance(run, int) and 0 <= run <= pixels for run in runs) or sum(runs) != pixels:
        raise DataError(f"{origin}: a run-length code that does not add up to the {size[0]}x{size[1]} pixels of the picture")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(size[::-1]).T


def _unpacked(text: str) -> list[int]:
    """COCO's compressed counts, 5 bits per character; from the fourth on, each is the difference from the one two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20 and shift < 64:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
