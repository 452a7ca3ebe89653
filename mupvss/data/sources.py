"""From a config to a data set: one function per source, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mupvss.config.schema import DataConfig
from mupvss.data.coco.source import load_coco
from mupvss.data.folder import load_folder
from mupvss.data.sample import Dataset
from mupvss.data.scenes.source import load_scenes
from mupvss.data.voc import load_voc

Purpose = Literal["train", "seeds", "val"]


def load_dataset(config: DataConfig, purpose: Purpose, limit: int | None = None) -> Dataset:
    """The pictures that train the classifier, those that get seeds and masks, or those the segmentation network is scored on;
    `limit` keeps the first few."""
    dataset = SOURCES[config.source](config, purpose)
    every = config.seed_every if purpose == "seeds" else 1
    return Dataset(dataset.classes, dataset.samples[:limit:every])


def _split(config: DataConfig, purpose: Purpose) -> str:
    return {"train": config.train_split, "seeds": config.seed_split, "val": config.val_split}[purpose]


def _coco(config: DataConfig, purpose: Purpose) -> Dataset:
    return load_coco(config, _split(config, purpose))


def _voc(config: DataConfig, purpose: Purpose) -> Dataset:
    split = _split(config, purpose)
    if purpose != "seeds":
        return load_voc(config, split)
    return load_voc(config, split, config.score_split, config.seed_without)


SOURCES: dict[str, Callable[[DataConfig, Purpose], Dataset]] = {
    "scenes": load_scenes,
    "voc": _voc,
    "coco": _coco,
    "folder": load_folder,
}
