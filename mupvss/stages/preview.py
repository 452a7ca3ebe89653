"""A preview while the classifier is still training: rough masks, so that wrong tags and hopeless classes are seen within minutes
and not after the whole run."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

import numpy as np
import torch

from mupvss.config.run import RunConfig
from mupvss.data.masks import read_label_image, write_palette_png
from mupvss.data.sample import Dataset, Sample, evenly
from mupvss.evaluation.sweep import BINS, level_counts
from mupvss.files import write_text
from mupvss.options import SearchConfig
from mupvss.predict.predictor import Predictor
from mupvss.report.html import page, picture, table
from mupvss.report.pictures import inline, overlay
from mupvss.runtime.log import console, each
from mupvss.search.seeds import read_seeds, seed_path, write_seeds
from mupvss.search.threshold import NO_BACKGROUND, choose

FOLDER = "preview"
SCALE = 0.75
"""Pictures are searched at this one scale."""
MOST, SHOWN = 2000, 400
"""Largest numbers of pictures that get a rough mask and that the page shows."""


def preview_of(dataset: Dataset, out: Path, device: str, config: RunConfig) -> Callable[[Path], None]:
    """A function that takes a saved network and writes its preview to OUT/preview: masks/NAME.png and index.html."""

    def make(checkpoint: Path) -> None:
        # The random numbers of the training must stay the same.
        with torch.random.fork_rng(devices=[]):
            _make(Dataset(dataset.classes, evenly(dataset.samples, MOST)), checkpoint, out / FOLDER, device, config)

    return make


def _make(dataset: Dataset, checkpoint: Path, folder: Path, device: str, config: RunConfig) -> None:
    predictor = Predictor.open(checkpoint, SearchConfig(scales=(SCALE,), size=config.search.size, pixel_steps=4), device=device)
    counts: list[np.ndarray] = []
    least: list[tuple[float, Sample]] = []
    for sample in each(FOLDER, dataset.samples):
        image = sample.open_image()
        tagged = dataset.tagged(sample)
        seeds = predictor.search(image, tagged, [predictor.kind])[predictor.kind]
        write_seeds(seed_path(folder, predictor.kind, sample.name), seeds)
        if tagged:
            counts.append(level_counts(seeds.maps.max(0)))
            scores = predictor.scores(image)
            least.append((min(scores[name] for name in sample.tags), sample))
    threshold = NO_BACKGROUND
    if config.data.background == "some":
        threshold = choose(np.array(counts).reshape(-1, BINS + 1), config.search.threshold).threshold
    for sample in dataset.samples:
        labels = read_seeds(seed_path(folder, predictor.kind, sample.name)).labels(threshold)
        write_palette_png(folder / "masks" / f"{sample.name}.png", labels)
    least.sort(key=lambda entry: (entry[0], entry[1].name))
    write_text(folder / "index.html", page("Preview: rough masks after part of the training", [("", _cells(least, folder))]))
    console.print(f"preview: {folder / 'index.html'}", highlight=False, soft_wrap=True)


def _cells(least: list[tuple[float, Sample]], folder: Path) -> str:
    """The pictures whose tags the network believes least come first, since their tags may be wrong."""
    rows = []
    for score, sample in least[:SHOWN]:
        mask = read_label_image(folder / "masks" / f"{sample.name}.png")
        shown = picture(inline(overlay(sample.open_image(), mask)), sample.name)
        rows.append([shown, escape(sample.origin), escape(", ".join(sorted(sample.tags))), f"{score:.2f}"])
    said = "<p>The pictures whose tags the network believes least come first; look there for wrong tags.</p>"
    return said + table(("", "picture", "tags", "lowest score"), rows, "pictures")
