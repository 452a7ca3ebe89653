"""Draws the figures of the documentation with the product itself, on its own scenes.

python docs/draw_figures.py RUN     (a finished run of configs/scenes.toml) -> docs/figures/*.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from mupvss.config.load import load_config
from mupvss.data.sources import load_dataset
from mupvss.files import save_image
from mupvss.masks.pseudo import pseudo_mask
from mupvss.predictor import load_classifier
from mupvss.report.grid import grid
from mupvss.report.pictures import heat, overlay

SCENES = (3, 8, 21)
KINDS = {
    "class_attention": "class attention",
    "prototype_only": "prototype search",
    "prototype": "+ affinity",
    "default": "default map",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    predictor = load_classifier(run)
    dataset = load_dataset(load_config(run / "train" / "config.toml").data, "seeds")
    threshold = predictor.threshold or 0.5
    rows = []
    for number in SCENES:
        sample = dataset.samples[number]
        image, tag = sample.open_image(), sorted(sample.tags)[0]
        index = dataset.classes.index(tag)
        all_tags = [i for i, name in enumerate(dataset.classes) if name in sample.tags]
        found = predictor.search(image, [index], list(KINDS))
        whole = predictor.search(image, all_tags, ["default"])["default"]
        mask = pseudo_mask(whole, np.asarray(image), threshold, load_config(run / "train" / "config.toml").masks)[0].labels()
        truth = sample.open_mask() if sample.open_mask is not None else np.zeros_like(mask)
        maps = [heat(image, found[kind].full()[0]) for kind in KINDS]
        rows.append((tag, [image, *maps, overlay(image, mask), overlay(image, truth)]))
    drawn: Image.Image = grid(["picture", *KINDS.values(), "pseudo mask", "truth"], rows)
    save_image(Path(__file__).parent / "figures" / "search.jpg", drawn, quality=88)


if __name__ == "__main__":
    main()
