"""From a config to a data set: one line per source."""

from __future__ import annotations

from typing import Literal

from mupvss.data.coco.source import load_coco
from mupvss.data.folder import load_folder
from mupvss.data.sample import Dataset
from mupvss.data.scenes.source import load_scenes
from mupvss.data.voc import load_voc
from mupvss.options import CocoData, DataConfig, FolderData, ScenesData, VocData

Purpose = Literal["train", "seeds", "val"]


def load_dataset(config: DataConfig, purpose: Purpose, limit: int | None = None) -> Dataset:
    """The pictures for one purpose: those that train the classifier (train), get seeds and masks (seeds), or score the
    segmentation network (val). `limit` keeps the first few."""
    dataset = _load(config, purpose, limit)
    every = config.seed_every if purpose == "seeds" else 1
    return Dataset(dataset.classes, dataset.samples[:limit:every], dataset.notes)


def _load(config: DataConfig, purpose: Purpose, limit: int | None) -> Dataset:
    if isinstance(config, ScenesData):
        return load_scenes(config, purpose)
    if isinstance(config, FolderData):
        return load_folder(config, purpose)
    if isinstance(config, CocoData):
        return load_coco(config, _split(config, purpose))
    split = _split(config, purpose)
    if purpose != "seeds":
        return load_voc(config, split, limit=limit)
    return load_voc(config, split, config.score_split, config.seed_without, limit)


def _split(config: VocData | CocoData, purpose: Purpose) -> str:
    return {"train": config.train_split, "seeds": config.seed_split, "val": config.val_split}[purpose]
