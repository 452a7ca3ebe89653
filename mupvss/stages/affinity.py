"""Stage `affinity`: labels that the seeds are sure of, and a network that learns from them what belongs together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mupvss.data.masks import write_palette_png
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.files import read_json
from mupvss.masks.pseudo import pseudo_mask
from mupvss.runtime.device import pick_device
from mupvss.runtime.log import each
from mupvss.runtime.processes import processes
from mupvss.search.seeds import read_seeds_for, seed_path
from mupvss.stages.run_folder import Metrics, Run, dataset_identity, fingerprint, run_stage, stage_fingerprint
from mupvss.training.affinity import train_affinity

NAME = "affinity"
REVISION = 2
"""Raised when the same options come to mean another network or other crops."""


def run_affinity(run: Run) -> Metrics:
    """-> DIR/affinity/labels/NAME.png and model.safetensors; nothing but a note for the kinds that need no training."""
    config = run.config
    dataset = load_dataset(config.data, "seeds", config.limit)
    upstream = [stage_fingerprint(run.folder(stage)) for stage in ("train", "seeds")]
    settings = (config.affinity, config.masks.sharpness, config.seed)
    depends_on = fingerprint(NAME, REVISION, upstream, *settings, dataset_identity(dataset))

    def work(folder: Path) -> Metrics:
        if config.affinity.kind in ("none", "patch"):
            return {"kind": config.affinity.kind}
        write_labels(run, dataset, folder)
        processes().wait()
        classifier, device = run.folder("train") / "model.safetensors", pick_device(config.device)
        settings = (config.affinity, dataset, folder / "labels", classifier, folder, config.seed, device)
        return {"kind": config.affinity.kind, **train_affinity(*settings, identity=_identity(run, dataset))}

    return run_stage(run, NAME, depends_on, work)


def write_labels(run: Run, dataset: Dataset, folder: Path) -> None:
    """Those that are there already stay."""
    seeds = run.folder("seeds")
    config = run.config.masks.model_copy(update={"crf": run.config.affinity.crf, "margin": run.config.affinity.margin})
    found = read_json(seeds / "metrics.json")
    for sample in each("affinity labels", dataset.samples):
        path = folder / "labels" / f"{sample.name}.png"
        if not path.is_file():
            image = sample.open_image()
            maps = read_seeds_for(image, sample, seed_path(seeds, found["maps"], sample.name))
            _, labels = pseudo_mask(maps, np.array(image), found["threshold"], config)
            write_palette_png(path, labels)


def _identity(run: Run, dataset: Dataset) -> str:
    seeds, names = stage_fingerprint(run.folder("seeds")), [s.name for s in dataset.samples]
    return fingerprint(run.config.affinity, run.config.seed, seeds, names)
