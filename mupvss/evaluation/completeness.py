"""Completeness: the share of each object that a map covers. The paper's claim is about it, and mIoU hides it.

A region is the pixels of one class in one picture. Its values are kept as a histogram, from which the share covered at any
threshold can be read afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mupvss.data.masks import IGNORE
from mupvss.evaluation.sweep import BINS, levels

SIZE_GROUPS = 6


@dataclass(frozen=True)
class Region:
    """One class in one picture."""

    picture: str
    class_id: int
    size: float
    """Share of the picture's counted pixels (those that are not ignored)."""
    covered: np.ndarray
    """(BINS + 1,) int64: pixels of the region that get its class at the threshold k / BINS; entry 0 is without a threshold."""
    pixels: int
    body_covered: np.ndarray | None
    """The same for the region without its telling part; None where parts are unknown."""
    body_pixels: int = 0

    def completeness(self, threshold: float) -> float:
        """Share of the region covered at the threshold, in [0, 1]."""
        return float(self.covered[round(threshold * BINS)] / self.pixels)

    def body_completeness(self, threshold: float) -> float | None:
        """Share of the plain body covered; None where parts are unknown or no pixel of the body is visible."""
        if self.body_covered is None or self.body_pixels == 0:
            return None
        return float(self.body_covered[round(threshold * BINS)] / self.body_pixels)


def regions(picture: str, value: np.ndarray, label: np.ndarray, truth: np.ndarray, part: np.ndarray | None) -> list[Region]:
    """The regions of one picture. value: best map value; label: its class id; truth: true class ids (255: ignored); part: the
    telling parts (bool). All are (H, W)."""
    level = levels(value)
    counted = int((truth != IGNORE).sum())
    found = []
    for class_id in np.unique(truth[(truth != IGNORE) & (truth > 0)]):
        inside = truth == class_id
        right = inside & (label == class_id)
        body = None if part is None else inside & ~part
        found.append(
            Region(
                picture,
                int(class_id),
                float(inside.sum() / counted),
                _at_least(level[right]),
                int(inside.sum()),
                None if body is None else _at_least(level[right & body]),
                0 if body is None else int(body.sum()),
            )
        )
    return found


@dataclass(frozen=True)
class Coverage:
    """What is kept of a region: how much of it is covered at one threshold."""

    picture: str
    class_id: int
    size: float
    completeness: float
    body: float | None
    """Of the region without its telling part; None where that is not known."""

    @classmethod
    def of(cls, region: Region, threshold: float) -> Coverage:
        return cls(
            region.picture, region.class_id, region.size, region.completeness(threshold), region.body_completeness(threshold)
        )


def condensed(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Regions with `size`, `completeness` and `body` (None where unknown) -> covered and body, the means over all of them, and
    groups of equal number, from small objects to large, each with the means of the three. Fewer than SIZE_GROUPS regions make no
    groups."""
    regions = sorted(found, key=lambda region: region["size"])
    parts = np.array_split(np.arange(len(regions)), SIZE_GROUPS) if len(regions) >= SIZE_GROUPS else []
    groups = [[regions[i] for i in part] for part in parts]
    return {
        "covered": _mean(regions, "completeness"),
        "body": _mean(regions, "body"),
        "groups": [[_mean(group, key) for key in ("size", "completeness", "body")] for group in groups],
    }


def _mean(regions: Sequence[dict[str, Any]], key: str) -> float | None:
    known = [region[key] for region in regions if region[key] is not None]
    return round(float(np.mean(known)), 5) if known else None


def _at_least(level: np.ndarray) -> np.ndarray:
    """Levels of some pixels -> for each k, the number of pixels at level k or above."""
    return np.cumsum(np.bincount(level.ravel(), minlength=BINS + 1)[::-1])[::-1]
