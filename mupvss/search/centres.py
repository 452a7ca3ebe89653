"""Centres: a few vectors per class that stand for what the search finds in all pictures with its tag, and as many again, twice
over, for what it does not find there (ours).

A picture's own prototype can show only what this picture shows, and it has no word for what surrounds its thing. So every tagged
picture is searched once with its own prototypes. The patches that are found, and those that are not, are gathered by class and
clustered. A patch then belongs to a class as far as it resembles a centre of what was found more than one of what was not
(`spatial_search.centres_map`). The search with these first centres is gathered once more, which gives the centres that are kept.
No classifier takes part. docs/lab-notes/26-centres.md has the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mupvss.data.sample import Dataset, Sample, evenly
from mupvss.model.features import Features
from mupvss.options import SearchOptions
from mupvss.search.maps import Map, usable_centres
from mupvss.search.multiscale import only_classes, stretch
from mupvss.search.spatial_search import centres_map

FOUND, NOT_FOUND = 0.6, 0.2
"""Patches over the first value of a map in [0, 1] are found, those under the second are not; the rest says nothing."""
PER_PICTURE = 30
"""At most so many patches of a picture stand for what was found of a class, and for what was not."""
PICTURES, LEAST = 2000, 20
"""So many pictures are gathered in all, shared out to the classes, but of no class fewer than the second number."""
ROUNDS = 30


class Seen(NamedTuple):
    """One tagged picture at the size of the training."""

    classes: list[int]
    patches: Tensor
    """Of unit length, half precision, (N, D)."""
    maps: Tensor
    """What is found of each class, (len(classes), N), at least 0."""


class Centres(NamedTuple):
    """For C classes, K each, of unit length. A class without any has zeros."""

    found: Tensor
    """(C, K, D)."""
    other: Tensor
    """Of what was not found in pictures with the tag, (C, 2 K, D)."""


def pictures_of_classes(dataset: Dataset) -> list[Sample]:
    """The pictures that are gathered, in the order of the data set: evenly chosen among those with each tag."""
    most = max(LEAST, PICTURES // max(1, len(dataset.classes)))
    having: list[list[int]] = [[] for _ in dataset.classes]
    for place, sample in enumerate(dataset.samples):  # once, since a large source makes its samples on demand
        for c in dataset.tagged(sample):
            having[c].append(place)
    chosen = {place for places in having for place in evenly(places, most)}
    return [dataset.samples[place] for place in sorted(chosen)]


def seen(
    features: Features, classes: Sequence[int], offered: Mapping[str, Map], kind: str, search: SearchOptions, options: Any
) -> Seen:
    """What a pass over one picture (B = 1) shows of its classes, by the kind of map that finds."""
    maps = offered[kind](only_classes(features, classes), search, options)[0]
    patches = F.normalize(features.patches[0].float(), dim=-1)
    return Seen(list(classes), patches.half().cpu(), maps.float().cpu())


def gather(pictures: Sequence[Seen], classes: int, count: int) -> Centres:
    """
    Args:
        pictures: What was seen of each.
        classes: C.
        count: K, centres per class.

    Returns:
        The centres, made twice: of what the pictures' own prototypes find, and of what the first centres keep of that.
    """
    first = gather_once(pictures, classes, count)
    kept = []
    for one in pictures:
        found, other = first.found[one.classes], first.other[one.classes]
        near = centres_map(one.patches.float().unsqueeze(0), found, other)[0]
        usable = usable_centres(found, other).unsqueeze(-1)
        kept.append(one._replace(maps=torch.where(usable, one.maps * near, one.maps)))
    return gather_once(kept, classes, count)


def gather_once(pictures: Sequence[Seen], classes: int, count: int) -> Centres:
    """As `gather`, of what the pictures' own maps find alone."""
    generator = torch.Generator().manual_seed(0)
    found: list[list[Tensor]] = [[] for _ in range(classes)]
    other: list[list[Tensor]] = [[] for _ in range(classes)]
    width = 0
    for one in pictures:
        values, patches = stretch(one.maps.unsqueeze(1)).squeeze(1), one.patches.float()
        best, width = values.amax(0), patches.shape[1]
        for own, c in zip(values, one.classes, strict=True):
            found[c].append(_some(patches[(own > FOUND) & (own >= best)], generator))
            other[c].append(_some(patches[own < NOT_FOUND], generator))
    return Centres(
        torch.stack([clustered(rows, count, width, generator) for rows in found]),
        torch.stack([clustered(rows, 2 * count, width, generator) for rows in other]),
    )


def _some(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows if len(rows) <= PER_PICTURE else rows[torch.randperm(len(rows), generator=generator)[:PER_PICTURE]]


def clustered(parts: Sequence[Tensor], count: int, width: int, generator: torch.Generator) -> Tensor:
    """Spherical k-means with the start of k-means++.

    Args:
        parts: Vectors of unit length, (n, width) each.
        count: Number of centres.
        width: D.
        generator: Chooses the start.

    Returns:
        (count, width), of unit length, repeated where there are fewer different vectors; zeros where there is none.
    """
    rows = torch.cat([torch.zeros(0, width), *parts])
    if not len(rows):
        return torch.zeros(count, width)
    chosen = [int(torch.randint(len(rows), (), generator=generator))]
    apart = 1 - rows @ rows[chosen[0]]
    while len(chosen) < count and apart.max() > 1e-6:
        chosen.append(int(torch.multinomial(apart.clamp_min(0), 1, generator=generator)))
        apart = torch.minimum(apart, 1 - rows @ rows[chosen[-1]])
    centres = rows[chosen]
    nearest = torch.full((len(rows),), -1)
    for _ in range(ROUNDS):
        now = (rows @ centres.T).argmax(1)
        if torch.equal(now, nearest):
            break
        nearest = now
        sums = torch.zeros_like(centres).index_add_(0, nearest, rows)
        centres = torch.where(sums.abs().amax(1, keepdim=True) > 0, F.normalize(sums, dim=-1), centres)
    return centres[torch.arange(count) % len(centres)]
