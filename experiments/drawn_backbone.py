"""Trains the backbone that the demo starts from, and writes what the package ships of it.

    python experiments/drawn_backbone.py [--out runs/drawn-backbone] [--pictures 400]

Trains `configs/drawn-backbone.toml` (resumable), asks the network for the tags of pictures that it has not seen, and writes
`mupvss/model/weights/drawn.safetensors` (the backbone alone, float16) and `docs/figures/drawn-kinds.jpg` (each kind once).
A second training gives other bytes, and is as good if its score is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

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


def write_weights(run: Path, score: float, image_steps: int) -> None:
    """Under the names that a pretrained ViT has; float16, which loading casts up."""
    state = load_classifier(run).network.state_dict()
    backbone = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    halves = {name: value.half() if value.is_floating_point() else value for name, value in backbone.items()}
    if not all(torch.isfinite(value).all() for value in halves.values()):
        raise SystemExit("a weight is too large for float16")
    about = {
        "of": "configs/drawn-backbone.toml",
        "image_steps": image_steps,
        "tags_map": round(score, 1),
        "licence": "Apache-2.0",
    }
    save_tensors(WEIGHTS, halves, about)


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
    parser.add_argument("--pictures", type=int, default=400, help="unseen pictures that the tags are asked of")
    given = parser.parse_args()
    config = load_config(ROOT / "configs" / "drawn-backbone.toml")
    trained = run_one(Run(config, given.out), "train")
    scenes = config.data.scenes.model_copy(update={"seeds": given.pictures})
    unseen = load_dataset(config.data.model_copy(update={"scenes": scenes}), "val")
    score = tags_score(given.out, unseen)
    write_weights(given.out, score, config.train.image_steps)
    save_image(SHEET, contact_sheet())
    print(
        json.dumps(
            {
                "tags_map": round(score, 1),
                "pictures": given.pictures,
                "kinds": len(WORLDS["many"]),
                "seconds": trained["seconds"],
                "precision": trained["precision"],
                "bytes": WEIGHTS.stat().st_size,
            }
        )
    )


if __name__ == "__main__":
    main()
