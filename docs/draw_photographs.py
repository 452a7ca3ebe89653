"""Draws README's first picture: two photographs that nobody learned from, and their masks from tags.

    pip install scikit-image
    python docs/draw_photographs.py RUN     (a run of configs/voc-animals.toml) -> docs/figures/photographs.jpg

The photographs come with scikit-image: a cat (CC0), and an astronaut (NASA, public domain).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

from mupvss.files import save_image
from mupvss.masks.pseudo import pseudo_mask
from mupvss.predict.load import load_classifier
from mupvss.predict.run import FinishedRun
from mupvss.report.pictures import grid, overlay

FIGURE = Path(__file__).parent / "figures" / "photographs.jpg"
PHOTOGRAPHS = {"cat": data.chelsea, "person": data.astronaut}
HEIGHT = 300
KIND = "search_and_cam_refined"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    folder = parser.parse_args().run
    predictor, config = load_classifier(folder), FinishedRun(folder).config()
    rows = []
    for tag, photograph in PHOTOGRAPHS.items():
        image = Image.fromarray(photograph()).convert("RGB")
        seeds = predictor.search(image, [predictor.classes.index(tag)], [KIND])[KIND]
        mask = pseudo_mask(seeds, np.asarray(image), predictor.threshold or 0.5, config.masks)[0].labels()
        rows.append([image, overlay(image, mask)])
        print(f"{tag}: {100 * (mask > 0).mean():.0f} % of the picture; tags that it would guess: {predictor.scores(image)}")
    header = [caption for tag in PHOTOGRAPHS for caption in (f"tag: {tag}", "mask")]
    save_image(FIGURE, grid(header, [("", [picture for row in rows for picture in row])], HEIGHT))


if __name__ == "__main__":
    main()
