"""Class masks from COCO's instances, by one stated rule.

Crowd regions are painted first: 255, to be ignored, or their class (`data.crowd`). Then every instance, the largest first, so
that what lies on a large thing stays visible; equal areas in the order of their ids. Pixels of no instance are background.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mupvss.data.coco.index import Annotation
from mupvss.errors import DataError
from mupvss.evaluation.counts import IGNORE


def paint(
    annotations: Sequence[Annotation], size: tuple[int, int], ids: dict[int, int], crowd_class: bool, origin: str
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
        raise ValueError("COCO masks need the extra: pip install 'mupvss[datasets]'") from None
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
    """COCO's compressed counts: numbers of 5 bits a character, each from the third on a difference to the one two before."""
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
