"""From one picture's maps to probabilities, through the dense CRF, to a mask with its confidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image

from mupvss.crf import MAX_PIXELS, DenseCRF, compile_ahead, preset
from mupvss.data.masks import IGNORE
from mupvss.data.preprocess import reduced, reduction
from mupvss.ops import best_enlarged
from mupvss.options import MasksConfig
from mupvss.search.seeds import Seeds
from mupvss.search.threshold import NO_BACKGROUND

SHARPNESS = 4.0
"""Power of the maps before they become probabilities for the CRF."""
LEAST = 1e-3
"""Smaller values of the maps and of the background are raised to this one."""


@dataclass(frozen=True)
class Refined:
    """Probabilities of the background and of a picture's tagged classes."""

    ids: np.ndarray
    """(K,) class ids from 1."""
    probabilities: np.ndarray
    """(K + 1, h, w) float32, the background first, at the picture's size; of a very large picture at a reduced one."""
    size: tuple[int, int]
    """(H, W) of the picture."""
    drawn: np.ndarray
    """(2, K + 1) shares of the picture's pixels that each label has, before and after the dense CRF; of the mask itself, also
    for a stronger or weaker background."""

    def labels(self) -> np.ndarray:
        """(H, W) uint8: the most likely class id."""
        return np.concatenate(([0], self.ids)).astype(np.uint8)[self._best(self.probabilities)[1]]

    def confidence(self) -> np.ndarray:
        """(H, W) uint8: the probability of the most likely class, 255 for 1."""
        return (255 * self._best(self.probabilities)[0] + 0.5).astype(np.uint8)

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """The most likely object class: its probability (H, W) in [0, 1] and id; zeros where there is no tag."""
        if len(self.ids) == 0:
            return np.zeros(self.size, np.float32), np.zeros(self.size, np.uint8)
        value, place = self._best(self.probabilities[1:])
        return value, self.ids.astype(np.uint8)[place]

    def _best(self, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, place = best_enlarged(torch.from_numpy(probabilities), self.size)
        return value.numpy(), place.numpy()


def refine_mask(seeds: Seeds, image: np.ndarray, background: float, config: MasksConfig, sharpness: float = SHARPNESS) -> Refined:
    """The mask of one picture with its probabilities, for a background value; see `pseudo_mask`."""
    return _refine(seeds, image, [_Question(background)], config, sharpness)[0]


def pseudo_mask(seeds: Seeds, image: np.ndarray, background: float, config: MasksConfig) -> tuple[Refined, np.ndarray]:
    """Maps, the RGB picture (H, W, 3) uint8 and a background value -> probabilities at the picture's size, refined by the CRF,
    and the labels to learn from (H, W) uint8.

    background: the map value that the background gets; NO_BACKGROUND: there is none. A label becomes 255 where a stronger or a
    weaker background (times 1 + margin, but at most halfway to 1, or times 1 - margin) changes it; without a background, where it
    changes if the class's own map is weaker. A picture without a tag is all background, or, if there is none, unsure.
    """
    if not len(seeds.ids) and background == NO_BACKGROUND:
        return refine_mask(seeds, image, background, config), np.full(seeds.size, IGNORE, np.uint8)
    refined, *others = _refine(seeds, image, _questions(background, config), config, SHARPNESS)
    labels = refined.labels()
    sure = np.logical_and.reduce([other.labels() == labels for other in others], initial=True)
    return refined, np.where(sure, labels, IGNORE).astype(np.uint8)


def prepare_crf(config: MasksConfig, tags: Iterable[int], background: float) -> None:
    """Compiles the dense CRF for pictures with these numbers of tags, as `pseudo_mask` will ask it."""
    if config.crf != "none":
        beside = 0 if background == NO_BACKGROUND else 1
        compile_ahead(config.crf, {beside + count for count in tags if count} - {1}, len(_questions(background, config)))


@dataclass(frozen=True)
class _Question:
    """Under what the mask of a picture is asked for."""

    background: float
    best: float = 1.0
    """Factor on the highest map at every pixel."""


def _questions(background: float, config: MasksConfig) -> list[_Question]:
    """The mask's own question first, then those that must not change a label."""
    own, margin = _Question(background), config.margin
    if not margin:
        return [own]
    if background == NO_BACKGROUND:
        return [own, _Question(background, 1 - margin)]
    # Near 1 no map could reach a background that is stronger by the whole margin, and no pixel would be sure of its object.
    stronger = min(background * (1 + margin), (1 + background) / 2)
    return [own, _Question(stronger), _Question(background * (1 - margin))]


def _refine(
    seeds: Seeds, image: np.ndarray, questions: Sequence[_Question], config: MasksConfig, sharpness: float
) -> list[Refined]:
    """One Refined per question. sharpness: power of the values before they become probabilities, which by itself moves no
    boundary but sets how sure the maps are."""
    size = seeds.size
    factor = reduction((size[1], size[0]), min(config.crf_pixels, MAX_PIXELS))
    if factor > 1:  # the whole picture's probabilities would take gigabytes
        image = np.asarray(reduced(Image.fromarray(image), factor))
        seeds = replace(seeds, size=image.shape[:2])
    maps = seeds.full()
    first = 1 if len(seeds.ids) and questions[0].background == NO_BACKGROUND else 0  # of the labels that may be chosen
    if first:
        maps = np.maximum(maps, LEAST)
    values = np.zeros((len(questions), 1 + len(maps), *seeds.size), np.float32)
    for asked, question in zip(values, questions, strict=True):
        asked[first:1] = max(question.background, LEAST)
        asked[1:] = maps
        if question.best != 1:
            asked[1:][maps == maps.max(0)] *= question.best
    values **= sharpness
    probabilities = values / values.sum(1, keepdims=True)
    before = _shares(probabilities[0])
    if config.crf != "none" and len(maps) >= 1 + first:
        crf = DenseCRF(image, preset(config.crf).reduced(factor))
        probabilities[:, first:] = crf.several(probabilities[:, first:], config.crf_steps)
    drawn = np.stack((before, _shares(probabilities[0])))
    return [Refined(seeds.ids, found, size, drawn) for found in probabilities]


def _shares(probabilities: np.ndarray) -> np.ndarray:
    """(K + 1, h, w) -> of the pixels (K + 1,) where each label is the most likely one."""
    return np.bincount(probabilities.argmax(0).ravel(), minlength=len(probabilities)) / max(1, probabilities[0].size)
