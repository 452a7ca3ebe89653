"""Tells from a picture's own seeds how doubtful its mask is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mupvss.search.seeds import Seeds
from mupvss.search.threshold import NO_BACKGROUND


@dataclass(frozen=True)
class MaskDoubt:
    """How doubtful a picture's mask is.

    For 328 tagged pictures of six animals (two trainings), `doubt` orders the masks by true mIoU with a rank correlation of 0.68
    to 0.70; `unsure` alone, over all classes together, does so with 0.59 to 0.65.
    """

    picture: int
    """Place in the data set."""
    doubt: float
    """In [0, 1]: the mean of `unsure` and `flat`, nine tenths of it by the worst class and one tenth by all of them, so that many
    pictures in which a class is lost have an order too."""
    unsure: float
    """How uncertain the borders are: pixels between strict and mild threshold, as a share of those over the mild one; 1 for a
    class that got no pixel. The largest value over the tagged classes."""
    flat: float
    """1 minus the difference between the mean of the map inside the mask and outside. The largest value over the tagged
    classes."""
    reach: float
    """1 where a tagged class got no pixel; otherwise it rises from 0 to 1 as the objects' share rises from NEARLY_ALL to 1."""


STRICT, MILD = 1.25, 0.75
"""Factors on the threshold."""
NEARLY_ALL = 0.9
DOUBT = 2
"""Increased when `mask_doubt` starts to give other values, which the studio keeps."""


def mask_doubt(picture: int, seeds: Seeds, threshold: float) -> MaskDoubt:
    """Doubt from one picture's maps and the run's threshold; none where there is no tag. Without a background, the borders are
    those between tags, and are uncertain where the second-best map is nearly as high."""
    if len(seeds.ids) == 0:
        return MaskDoubt(picture, 0.0, 0.0, 0.0, 0.0)
    maps = seeds.maps.astype(np.float32)
    best, winner = maps.max(0), maps.argmax(0)
    inside = best >= threshold
    strict, mild = (best >= min(1.0, factor * threshold) for factor in (STRICT, MILD))
    if threshold == NO_BACKGROUND and len(maps) > 1:
        strict = MILD * best >= np.partition(maps, -2, axis=0)[-2]
    unsure, flat, lost = [], [], False
    for number, own in enumerate(maps):
        won = winner == number
        mask = inside & won
        lost = lost or not mask.any()
        high = float(own[mask].mean()) if mask.any() else 0.0
        low = float(own[~mask].mean()) if not mask.all() else 0.0
        flat.append(min(1.0, max(0.0, 1 - (high - low))))
        weak, strong = int((mild & won).sum()), int((strict & won).sum())
        unsure.append((weak - strong) / max(1, weak) if mask.any() else 1.0)
    share = 0.0 if threshold == NO_BACKGROUND else float(inside.mean())
    reach = 1.0 if lost else max(0.0, (share - NEARLY_ALL) / (1 - NEARLY_ALL))
    worst, usual = ((of(unsure) + of(flat)) / 2 for of in (max, np.mean))
    return MaskDoubt(picture, float(0.9 * worst + 0.1 * usual), max(unsure), max(flat), reach)
