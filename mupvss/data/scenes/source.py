"""The drawn scenes as a data set; each picture is drawn when first asked for and kept in memory."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from mupvss.config.schema import DataConfig, ScenesConfig
from mupvss.data.sample import Dataset, LazySamples, Sample
from mupvss.data.scenes.render import CLASSES, draw_scene
from mupvss.errors import DataError

_scene = functools.lru_cache(maxsize=20_000)(draw_scene)


def load_scenes(config: DataConfig, split: str) -> Dataset:
    """Even a scene's tags are known by drawing it, so that is left until it is asked for.

    split train: scenes 0 ... train-1; seeds: the first of them; val: pictures of no other split."""
    scenes = config.scenes
    classes = config.classes or CLASSES
    unknown = sorted(set(classes) - set(CLASSES))
    if unknown:
        raise DataError(f"data.classes: the scenes have no class {unknown}; they have {', '.join(CLASSES)}")
    first, count = {"train": (0, scenes.train), "seeds": (0, scenes.seeds), "val": (10_000_000, scenes.seeds)}[split]
    table = np.full(256, 0 if config.other_classes == "background" else 255, np.uint8)
    table[0] = 0
    for class_id, name in enumerate(CLASSES, 1):
        if name in classes:
            table[class_id] = classes.index(name) + 1
    make = functools.partial(_sample, scenes, tuple(classes), table.tobytes())
    return Dataset(tuple(classes), LazySamples(range(first, first + count), make))


def _sample(config: ScenesConfig, classes: tuple[str, ...], table: bytes, number: int) -> Sample:
    """table: of 256 bytes, from the ids of the drawing to those of `classes`."""
    scene = (config.seed, number, config.size)
    return Sample(
        f"scene-{number:08d}",
        f"scene {number} of seed {config.seed}",
        _tags(*scene) & frozenset(classes),
        functools.partial(_image, *scene),
        functools.partial(_mask, *scene, table),
        functools.partial(_part, *scene),
    )


@functools.cache
def _tags(seed: int, index: int, size: int) -> frozenset[str]:
    return frozenset(CLASSES[k - 1] for k in np.unique(_scene(seed, index, size).mask) if k)


def _image(seed: int, index: int, size: int) -> Image.Image:
    return Image.fromarray(_scene(seed, index, size).image)


def _part(seed: int, index: int, size: int) -> np.ndarray:
    return _scene(seed, index, size).part


def _mask(seed: int, index: int, size: int, table: bytes) -> np.ndarray:
    return np.frombuffer(table, np.uint8)[_scene(seed, index, size).mask]
