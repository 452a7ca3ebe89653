"""Stage `masks`: pseudo masks from seeds, through affinity and the dense CRF, with a confidence per pixel."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mupvss.data.masks import write_grey_png, write_palette_png
from mupvss.data.sample import Dataset
from mupvss.data.sources import load_dataset
from mupvss.evaluation.confusion import confusion_matrix, scores
from mupvss.evaluation.sweep import BINS, best_threshold, threshold_histogram
from mupvss.files import read_json
from mupvss.masks.affinity_networks import load_affinity
from mupvss.masks.pseudo import Refined, pseudo_mask
from mupvss.masks.random_walk import walked
from mupvss.model.checkpoint import load_network
from mupvss.runtime.device import pick_device
from mupvss.runtime.log import each
from mupvss.runtime.processes import processes
from mupvss.search.seeds import Seeds, read_seeds, read_seeds_for, seed_path, write_seeds
from mupvss.stages.run_folder import Metrics, Run, dataset_identity, fingerprint, run_stage, stage_fingerprint, truth_identity
from mupvss.stages.search import read_mask, score_maps

NAME = "masks"
KIND = "walked"


def run_masks(run: Run) -> Metrics:
    """-> DIR/masks/full/NAME.png (every pixel), labels/NAME.png (255 where unsure), confidence/NAME.png (grey, 255 for 1)."""
    config = run.config
    dataset = load_dataset(config.data, "seeds", config.limit)
    upstream = [stage_fingerprint(run.folder(stage)) for stage in ("train", "seeds", "affinity")]
    depends_on = fingerprint(NAME, upstream, config.affinity, config.masks, dataset_identity(dataset))

    def work(folder: Path) -> Metrics:
        walk_all(run, dataset, folder)
        found = score_maps(dataset, folder, KIND)
        metrics = {"threshold": found.threshold, **_write(run, dataset, folder, found.threshold)}
        if found.plain is not None and found.oracle is not None:
            metrics |= {"affinity_miou": found.plain.miou, "affinity_oracle": found.oracle.miou}
            before = read_json(run.folder("seeds") / "metrics.json")
            metrics |= {"seeds_miou": before["miou"], "seeds_oracle": before["miou_oracle"]}
        return metrics

    return run_stage(run, NAME, depends_on, work, truth_identity(dataset, config.data))


def walk_all(run: Run, dataset: Dataset, folder: Path) -> None:
    """-> folder/maps/walked/NAME.npz; those that are there already stay."""
    seeds = run.folder("seeds")
    kind = read_json(seeds / "metrics.json")["maps"]
    walk = _walker(run)
    for sample in each("affinity walk", dataset.samples):
        path = seed_path(folder, KIND, sample.name)
        if not path.is_file():
            image = sample.open_image()
            write_seeds(path, walk(read_seeds_for(image, sample, seed_path(seeds, kind, sample.name)), image))


def _walker(run: Run) -> Callable[[Seeds, Image.Image], Seeds]:
    config, device = run.config.affinity, pick_device(run.config.device)
    checkpoint = run.folder("train") / "model.safetensors"
    if config.kind == "none":
        return lambda seeds, image: seeds
    classifier, info = load_network(checkpoint)
    ready: torch.nn.Module = classifier
    if config.kind != "patch":
        ready = load_affinity(run.folder("affinity") / "model.safetensors", config, checkpoint)
    ready = ready.to(device).eval()
    return lambda seeds, image: walked(seeds, image, ready, config, info.model.patch_size, device)  # type: ignore[arg-type]


def _write(run: Run, dataset: Dataset, folder: Path, background: float) -> Metrics:
    config, size = run.config.masks, len(dataset.classes) + 1
    matrix = np.zeros((size, size), np.int64)
    histogram = np.zeros((BINS + 1, size, size), np.int64)
    ignored: list[float] = []
    for sample in each(NAME, dataset.samples):
        seeds = read_seeds(seed_path(folder, KIND, sample.name))
        image = np.array(sample.open_image())
        refined, labels = pseudo_mask(seeds, image, background, config)
        write_mask(folder, sample.name, refined, labels)
        ignored.append(float((labels == 255).mean()))
        if sample.open_mask is not None:
            truth = read_mask(sample, seeds.size)
            matrix += confusion_matrix(refined.labels(), truth, size)
            histogram += threshold_histogram(*refined.best(), truth, size)
    team = processes()
    matrix, histogram = team.total(matrix), team.total(histogram)
    metrics: Metrics = {"unsure_percent": 100 * sum(team.in_order(ignored)) / max(1, len(dataset.samples))}
    if histogram.any():
        # The oracle moves the background's probability after the CRF, without running it again.
        metrics |= {"miou": scores(matrix).miou, "miou_oracle": max(scores(matrix).miou, best_threshold(histogram)[1].miou)}
    return metrics


def write_mask(folder: Path, name: str, refined: Refined, labels: np.ndarray) -> None:
    """The three files of a picture."""
    write_palette_png(folder / "full" / f"{name}.png", refined.labels())
    write_palette_png(folder / "labels" / f"{name}.png", labels)
    write_grey_png(folder / "confidence" / f"{name}.png", refined.confidence())
