"""From a config to a data set: one function per source, one line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from mupvss.config.schema import DataConfig
from mupvss.data.folder import load_folder
from mupvss.data.sample import Dataset
from mupvss.data.scenes.source import load_scenes
from mupvss.data.voc import load_voc

Purpose = Literal["train", "seeds", "val"]

SOURCES: dict[str, Callable[[DataConfig, str], Dataset]] = {
    "scenes": load_scenes,
    "voc": load_voc,
    "folder": load_folder,
}


def load_dataset(config: DataConfig, purpose: Purpose, limit: int | None = None) -> Dataset:
    """The pictures that train the classifier, those that get seeds and masks, or those the segmentation network is scored on;
    `limit` keeps the first few."""
    split: str = purpose
    if config.source == "voc":
        split = {"train": config.train_split, "seeds": config.seed_split, "val": config.val_split}[purpose]
    dataset = SOURCES[config.source](config, split)
    every = config.seed_every if purpose == "seeds" else 1
    return Dataset(dataset.classes, dataset.samples[:limit:every])
