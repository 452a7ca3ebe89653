"""Stage `affinity`: makes labels where the seeds are sure, and trains a network on them to tell which pixels belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mupvss.config.run import RunConfig
from mupvss.data.masks import IGNORE, read_label_image, write_palette_png
from mupvss.data.sample import Dataset, evenly
from mupvss.data.summary import print_doubts
from mupvss.files import read_json
from mupvss.masks.pseudo import pseudo_mask
from mupvss.options import MasksConfig, NoAffinity, Section, added
from mupvss.runtime.log import console, each
from mupvss.runtime.processes import processes
from mupvss.search.seeds import read_seeds_for, seed_path
from mupvss.stages.run_folder import Metrics, Stage, Work
from mupvss.training.affinity import train_affinity

CRF, MARGIN = "clip-es", 0.3
"""CRF and margin of the labels that the affinity network learns from; see `MasksConfig`."""
LOOKED_AT, ENOUGH = 500, 0.05
"""Affinity is learned only if this share of so many pictures has labels of two kinds."""


class AffinityInputs(Section):
    """What the affinity network depends on besides classifier and seeds."""

    affinity: Section
    crf_steps: int
    seed: int
    flip: bool
    crf_pixels: int = added(2_000_000, neutral=2_000_000)


def affinity_inputs(config: RunConfig) -> Section:
    if isinstance(config.affinity, NoAffinity):
        return config.affinity
    return AffinityInputs.model_construct(
        affinity=config.affinity,
        crf_steps=config.masks.crf_steps,
        seed=config.seed,
        flip=config.train.flip,
        crf_pixels=config.masks.crf_pixels,
    )


def affinity(work: Work) -> Metrics:
    """-> labels/NAME.png and model.safetensors; nothing where seeds are used as they are."""
    inputs = work.inputs
    if isinstance(inputs, NoAffinity):
        return {"kind": inputs.kind}
    write_labels(work, inputs)
    processes().wait()
    labels, classifier = work.folder / "labels", work.run.checkpoint("train")
    both = processes().from_main(share_with_both(work.dataset, labels))
    if both < ENOUGH:
        warning = (
            f"in {100 * both:.0f} % of the tagged pictures are the maps sure of two things at once, such as object and "
            "background, so the affinity of pixels cannot be learned from them; the maps are used as they are"
        )
        print_doubts([warning], console)
        return {"kind": inputs.affinity.kind, "learned": False, "both": both, "warnings": [warning]}
    settings = (inputs.affinity, inputs.seed, inputs.flip, work.dataset, labels, classifier)
    return {"kind": inputs.affinity.kind, **train_affinity(*settings, work.run.manner, work.folder, work.identity)}


def write_labels(work: Work, inputs: AffinityInputs) -> None:
    """Writes labels/NAME.png; those that already exist are kept."""
    seeds = work.run.folder("seeds")
    config = MasksConfig(crf=CRF, crf_steps=inputs.crf_steps, crf_pixels=inputs.crf_pixels, margin=MARGIN)
    found = read_json(seeds / "metrics.json")
    for sample in each("affinity labels", work.dataset.samples):
        path = work.folder / "labels" / f"{sample.name}.png"
        if not path.is_file():
            image = sample.open_image()
            maps = read_seeds_for(image, sample, seed_path(seeds, found["maps"], sample.name))
            _, labels = pseudo_mask(maps, np.array(image), found["threshold"], config)
            write_palette_png(path, labels)


def share_with_both(dataset: Dataset, labels: Path) -> float:
    """Share of the tagged pictures whose sure labels are of two kinds, from LOOKED_AT of them; 1 without a tagged picture."""
    tagged = evenly([sample for sample in dataset.samples if sample.tags], LOOKED_AT)
    found = [np.unique(read_label_image(labels / f"{sample.name}.png")) for sample in tagged]
    return float(np.mean([(values != IGNORE).sum() > 1 for values in found])) if found else 1.0


AFFINITY = Stage(
    "affinity",
    affinity_inputs,
    affinity,
    after=("train", "seeds"),
    revision=3,
    does="learns from {pictures} which neighbouring pixels belong together",
    idle=lambda inputs: isinstance(inputs, NoAffinity),
)
