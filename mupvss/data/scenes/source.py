"""The drawn scenes as a data set, each drawn when first asked for; and `mupvss data draw`, which writes them as a folder to try
things on."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from mupvss.data.masks import write_palette_png
from mupvss.data.sample import Dataset, LazySamples, Sample
from mupvss.data.scenes.render import WORLDS, draw_scene
from mupvss.data.tags import write_tags
from mupvss.errors import DataError
from mupvss.files import save_image
from mupvss.options import ScenesConfig, ScenesData
from mupvss.runtime.log import progress_bar

_scene = functools.lru_cache(maxsize=20_000)(draw_scene)


def load_scenes(config: ScenesData, split: str) -> Dataset:
    """Even a scene's tags are known by drawing it, so that is left until it is asked for.

    split train: scenes 0 ... train-1; seeds: the first of them; val: pictures of no other split."""
    scenes = config.scenes
    drawn = tuple(WORLDS[scenes.world])
    classes = config.classes or drawn
    unknown = sorted(set(classes) - set(drawn))
    if unknown:
        raise DataError(f"data.classes: the scenes have no class {unknown}; they have {', '.join(drawn)}")
    unseen = scenes.seeds if scenes.val is None else scenes.val
    first, count = {"train": (0, scenes.train), "seeds": (0, scenes.seeds), "val": (10_000_000, unseen)}[split]
    table = np.full(256, 0 if config.other_classes == "background" else 255, np.uint8)
    table[0] = 0
    for class_id, name in enumerate(drawn, 1):
        if name in classes:
            table[class_id] = classes.index(name) + 1
    make = functools.partial(_sample, scenes, tuple(classes), table.tobytes())
    return Dataset(tuple(classes), LazySamples(range(first, first + count), make))


def _sample(config: ScenesConfig, classes: tuple[str, ...], table: bytes, number: int) -> Sample:
    """table: of 256 bytes, from the ids of the drawing to those of `classes`."""
    scene = (config.seed, number, config.size, config.world)
    return Sample(
        f"scene-{number:08d}",
        f"scene {number} of seed {config.seed}",
        _tags(*scene) & frozenset(classes),
        functools.partial(_image, *scene),
        functools.partial(_mask, *scene, table),
        functools.partial(_part, *scene),
    )


@functools.cache
def _tags(seed: int, index: int, size: int, world: str) -> frozenset[str]:
    classes = tuple(WORLDS[world])
    return frozenset(classes[k - 1] for k in np.unique(_scene(seed, index, size, world).mask) if k)


def _image(seed: int, index: int, size: int, world: str) -> Image.Image:
    return Image.fromarray(_scene(seed, index, size, world).image)


def _part(seed: int, index: int, size: int, world: str) -> np.ndarray:
    return _scene(seed, index, size, world).part


def _mask(seed: int, index: int, size: int, world: str, table: bytes) -> np.ndarray:
    return np.frombuffer(table, np.uint8)[_scene(seed, index, size, world).mask]


def draw_folder(out: Path, count: int, size: int, seed: int, masks: bool) -> None:
    """-> OUT/pictures/NAME.png, OUT/tags.csv and, if asked for, the true masks in OUT/masks."""
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; give another folder")
    dataset = load_scenes(ScenesData(scenes=ScenesConfig(size=size, seed=seed, train=count)), "train")
    with progress_bar("draw", count, "pictures") as advance:
        for sample in dataset.samples:
            save_image(out / "pictures" / f"{sample.name}.png", sample.open_image())
            if masks and sample.open_mask is not None:
                write_palette_png(out / "masks" / f"{sample.name}.png", sample.open_mask())
            advance(1)
    write_tags(out / "tags.csv", {f"{sample.name}.png": sample.tags for sample in dataset.samples})
    Console().print(f"{count} pictures in {out / 'pictures'}, tags in {out / 'tags.csv'}", highlight=False, soft_wrap=True)
