"""`mupvss init`: from a folder of pictures and their tags to a commented config and the commands to run."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from mupvss.config.load import load_config
from mupvss.config.schema import DataConfig, RunConfig
from mupvss.data.folder import load_folder
from mupvss.data.sample import Dataset
from mupvss.errors import DataError
from mupvss.files import write_text
from mupvss.start.estimate import Estimate, measure
from mupvss.start.template import config_text

console = Console()
BACKBONES = {"tiny": "timm/deit_tiny_patch16_224.fb_in1k", "small": "timm/deit_small_patch16_224.fb_in1k"}
"""Pretrained weights on the Hugging Face hub."""
FEW = 20
"""Pictures of a class under which its masks will be poor."""
MIN_STEPS, MAX_STEPS, EPOCHS = 12_800, 200_000, 8
"""Image steps: so many epochs, within these bounds."""


@dataclass(frozen=True)
class Wishes:
    """What is known of a project to be."""

    pictures: Path
    tags: Path | None
    val_tags: Path | None
    """Table of pictures kept back."""
    out: Path
    backbone: str
    weights: str | None
    """None: from the hub."""
    force: bool
    quick: bool
    """Skip the measurement."""


def initialise(wishes: Wishes) -> None:
    """Writes the config and prints what was found, how long it will take, and what to type next."""
    if wishes.out.exists() and not wishes.force:
        raise DataError(f"{wishes.out}: is there already; give another --out, or --force to replace it")
    tags, val_tags = (None if path is None else _relative(path) for path in (wishes.tags, wishes.val_tags))
    data = DataConfig(source="folder", root=_relative(wishes.pictures), tags=tags, val_tags=val_tags)
    dataset = load_folder(data, "train")
    if val_tags is not None:
        load_folder(data, "val")  # a table that cannot be read is told of now
    _tell(dataset)
    weights = BACKBONES[wishes.backbone] if wishes.weights is None else wishes.weights
    steps = min(MAX_STEPS, max(MIN_STEPS, EPOCHS * len(dataset.samples)))
    write_text(wishes.out, config_text(wishes.out.stem, data, dataset, wishes.backbone, weights, steps))
    config = load_config(wishes.out)  # what was written can be read
    console.print(f"\nwrote {wishes.out}", highlight=False, soft_wrap=True)
    if not wishes.quick:
        _tell_time(measure(config, dataset))
    _tell_weights(weights)
    _tell_next(wishes.out, config)


def _relative(path: Path) -> Path:
    """As the user would write it from here."""
    return Path(os.path.relpath(path)) if path.is_absolute() and path.is_relative_to(Path.cwd()) else path


def _tell(dataset: Dataset) -> None:
    counts = Counter(tag for sample in dataset.samples for tag in sample.tags)
    untagged = sum(not sample.tags for sample in dataset.samples)
    console.print(f"{len(dataset.samples)} pictures, {len(dataset.classes)} tags, {untagged} pictures without a tag")
    for name in dataset.classes:
        console.print(f"  {name:24s} {counts[name]:6d}", highlight=False)
    few = [name for name in dataset.classes if counts[name] < FEW]
    if few:
        console.print(f"few pictures of {', '.join(few)}: expect poor masks of it; {FEW} and more are better")
    if len(dataset.classes) == 1 and not untagged:
        console.print("every picture has the one tag: add pictures without it, or there is nothing to tell it from")


def _tell_time(estimate: Estimate) -> None:
    console.print("\non this computer, at least:")
    for name, seconds in (*estimate.stages, ("in all", estimate.total)):
        console.print(f"  {name:24s} {_spoken(seconds):>12s}", highlight=False)


def _spoken(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _tell_weights(weights: str) -> None:
    if not weights:
        console.print("\nno pretrained weights: expect poor masks of real pictures")
    elif weights in BACKBONES.values() and not _is_cached(weights):
        console.print(
            f"\npretrained weights come from the Hugging Face hub at the first training ({weights}). Without internet: fetch\n"
            f"https://huggingface.co/{weights}/resolve/main/model.safetensors elsewhere, and set model.weights to the file.",
            highlight=False,
            soft_wrap=True,
        )


def _is_cached(weights: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(weights, "model.safetensors"), str)


def _tell_next(path: Path, config: RunConfig) -> None:
    out = f"runs/{path.stem}"
    commands = (
        f"data check {path}",
        f"run {path}",
        f"predict {out} {config.data.root} --out {out}/predict",
        f"data doctor {out}",
        f"studio {out}",
    )
    console.print("\nnext:", *(f"  mupvss {command}" for command in commands), sep="\n", highlight=False, soft_wrap=True)
