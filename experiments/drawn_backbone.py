"""Trains the network that the demo starts from, from tags alone, and writes what the package ships of it.

    python experiments/drawn_backbone.py [--out runs/drawn-backbone]

A run of `configs/drawn-backbone.toml` (resumable): a classifier on the tags, its maps, pseudo-masks, and a segmentation network.
Then the script asks both networks about pictures that they have not seen, and writes
`mupvss/model/weights/drawn.safetensors` (backbone and decoder of the segmentation network without the layers that know the 41
kinds, float16) and `docs/figures/drawn-kinds.jpg` (each kind once). A second training gives other bytes, and is as good if its
scores are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

import mupvss
from mupvss.config.load import load_config
from mupvss.data.sample import Dataset
from mupvss.data.scenes.render import WORLDS, draw_scene
from mupvss.data.sources import load_dataset
from mupvss.files import save_image
from mupvss.model.checkpoint import save_tensors
from mupvss.predict.load import load_classifier
from mupvss.report.pictures import PAPER, grid
from mupvss.runtime.log import each
from mupvss.segmentation.build import load_segmenter
from mupvss.segmentation.networks import ViTSegmenter
from mupvss.stages.run import run_one
from mupvss.stages.run_folder import Run

ROOT = Path(__file__).parent.parent
WEIGHTS = Path(mupvss.__file__).parent / "model" / "weights" / "drawn.safetensors"
SHEET = ROOT / "docs" / "figures" / "drawn-kinds.jpg"
COLUMNS = 7


def tags_score(run: Path, dataset: Dataset) -> float:
    """Mean average precision of the tags over the classes, in percent."""
    predictor = load_classifier(run)
    truth = np.stack([dataset.tag_vector(sample) for sample in dataset.samples])
    said = []
    for sample in each("tags", dataset.samples):
        features = predictor.features(sample.open_image(), 1.0, mirror=False)
        said.append(features.patch_score.float()[0].cpu().numpy())
    there = truth.any(0)
    return 100 * float(np.mean([average_precision_score(truth[:, c], np.stack(said)[:, c]) for c in np.flatnonzero(there)]))


def write_weights(segmenter: Path, about: dict[str, Any]) -> None:
    """Under the names of the segmentation network; float16, which loading casts up."""
    network = load_segmenter(segmenter)[0]
    assert isinstance(network, ViTSegmenter)
    decoder = network.decoder_without_classes()
    kept = {name: value for name, value in network.state_dict().items() if name in decoder or name.startswith("backbone.")}
    halves = {name: value.half() if value.is_floating_point() else value for name, value in kept.items()}
    if not all(torch.isfinite(value).all() for value in halves.values()):
        raise SystemExit("a weight is too large for float16")
    save_tensors(WEIGHTS, halves, {"of": "configs/drawn-backbone.toml", "licence": "Apache-2.0", **about})


def contact_sheet(size: int = 96) -> Image.Image:
    """The first picture of every kind in which it is alone."""
    kinds, found, number = list(WORLDS["many"]), {}, 0
    while len(found) < len(kinds):
        scene = draw_scene(0, number, size, "many")
        ids = np.unique(scene.mask[scene.mask > 0])
        if len(ids) == 1 and (scene.mask > 0).mean() > 0.12:
            found.setdefault(kinds[ids[0] - 1], Image.fromarray(scene.image))
        number += 1
    blank = Image.new("RGB", (size, size), PAPER)
    blocks = []
    for first in range(0, len(kinds), COLUMNS):
        names = [*kinds[first : first + COLUMNS], *[""] * COLUMNS][:COLUMNS]
        blocks.append(grid(names, [("", [found.get(name, blank) for name in names])], size))
    sheet = Image.new("RGB", (blocks[0].width, sum(block.height for block in blocks)), PAPER)
    for number, block in enumerate(blocks):
        sheet.paste(block, (0, number * block.height))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/drawn-backbone"))
    run = Run(load_config(ROOT / "configs" / "drawn-backbone.toml"), parser.parse_args().out)
    found = {stage: run_one(run, stage) for stage in ("train", "seeds", "masks", "segment", "val")}
    about = {
        "image_steps_tags": run.config.train.image_steps,
        "image_steps_masks": run.config.segment.train.image_steps,
        "tags_map": round(tags_score(run.out, load_dataset(run.config.data, "val")), 1),
        "masks_miou": round(found["masks"]["miou"], 1),
        "unseen_miou": round(found["val"]["miou"], 1),
    }
    write_weights(run.checkpoint("segment"), about)
    save_image(SHEET, contact_sheet())
    print(json.dumps(about | {"kinds": len(WORLDS["many"]), "bytes": WEIGHTS.stat().st_size}))


if __name__ == "__main__":
    main()
