"""Tells from a picture's own seeds how doubtful its mask is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mupvss.search.seeds import Seeds


@dataclass(frozen=True)
class MaskDoubt:
    picture: int
    """Place in the data set."""
    doubt: float
    """In [0, 1]: the larger of `unsure` and `reach`."""
    unsure: float
    """How uncertain the objects' borders are: pixels between strict and mild threshold, as a share of those over the mild one."""
    reach: float
    """1 where a tagged class got no pixel; otherwise it rises from 0 to 1 as the objects' share rises from NEARLY_ALL to 1."""


STRICT, MILD = 1.25, 0.75
"""Factors on the threshold."""
NEARLY_ALL = 0.9


def mask_doubt(picture: int, seeds: Seeds, threshold: float) -> MaskDoubt:
    """Doubt from one picture's maps and the run's threshold; none where there is no tag."""
    if len(seeds.ids) == 0:
        return MaskDoubt(picture, 0.0, 0.0, 0.0)
    best = seeds.maps.astype(np.float32).max(0)
    strict, mild = (best >= min(1.0, factor * threshold) for factor in (STRICT, MILD))
    between = float(mild.mean() - strict.mean())
    unsure = min(1.0, between / max(float(mild.mean()), 1e-6))
    winners = seeds.ids[seeds.maps.argmax(0)][best >= threshold]
    lost = sum(1 for class_id in seeds.ids if not (winners == class_id).any())
    share = float((best >= threshold).mean())
    reach = 1.0 if lost else max(0.0, (share - NEARLY_ALL) / (1 - NEARLY_ALL))
    return MaskDoubt(picture, max(unsure, reach), unsure, reach)
