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

SHARPNESS = 4.0
"""Power of the maps before they become probabilities for the CRF."""


@dataclass(frozen=True)
class Refined:
    """Probabilities of the background and of a picture's tagged classes."""

    ids: np.ndarray
    """(K,) class ids from 1."""
    probabilities: np.ndarray
    """(K + 1, h, w) float32, the background first, at the picture's size; of a very large picture at a reduced one."""
    size: tuple[int, int]
    """(H, W) of the picture."""

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
    """`refine_masks` for one background."""
    return refine_masks(seeds, image, [background], config, sharpness)[0]


def refine_masks(
    seeds: Seeds, image: np.ndarray, backgrounds: Sequence[float], config: MasksConfig, sharpness: float = SHARPNESS
) -> list[Refined]:
    """Maps, the RGB picture (H, W, 3) uint8 and background values -> for each of these a Refined, at the picture's size.

    backgrounds: map values that the background gets; sharpness: power of the values before they become probabilities, which by
    itself moves no boundary but sets how sure the maps are. A picture without a tag is all background.
    """
    size = seeds.size
    factor = reduction((size[1], size[0]), min(config.crf_pixels, MAX_PIXELS))
    if factor > 1:  # the whole picture's probabilities would take gigabytes
        image = np.asarray(reduced(Image.fromarray(image), factor))
        seeds = replace(seeds, size=image.shape[:2])
    values = np.empty((len(backgrounds), 1 + len(seeds.ids), *seeds.size), np.float32)
    values[:, 0] = np.maximum(backgrounds, 1e-3)[:, None, None]
    values[:, 1:] = seeds.full()
    values **= sharpness
    probabilities = values / values.sum(1, keepdims=True)
    if config.crf != "none" and len(seeds.ids):
        probabilities = DenseCRF(image, preset(config.crf).reduced(factor)).several(probabilities, config.crf_steps)
    return [Refined(seeds.ids, found, size) for found in probabilities]


def prepare_crf(config: MasksConfig, tags: Iterable[int]) -> None:
    """Compiles the dense CRF for pictures with these numbers of tags, as `pseudo_mask` will ask it."""
    if config.crf != "none":
        compile_ahead(config.crf, (1 + count for count in tags if count), len(_backgrounds(0.5, config)))


def _backgrounds(background: float, config: MasksConfig) -> list[float]:
    """The mask's own, and those that must not change a label."""
    return [background, *(background * factor for factor in (1 + config.margin, 1 - config.margin) if config.margin)]


def pseudo_mask(seeds: Seeds, image: np.ndarray, background: float, config: MasksConfig) -> tuple[Refined, np.ndarray]:
    """-> the refined probabilities, and the labels to learn from (H, W) uint8.

    A label becomes 255 where a stronger or a weaker background (times 1 + margin or 1 - margin) changes it.
    """
    refined, *others = refine_masks(seeds, image, _backgrounds(background, config), config)
    labels = refined.labels()
    sure = np.logical_and.reduce([other.labels() == labels for other in others], initial=True)
    return refined, np.where(sure, labels, IGNORE).astype(np.uint8)
