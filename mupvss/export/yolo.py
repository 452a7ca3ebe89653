"""YOLO segmentation: a text file per picture, a polygon per line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mupvss.export.item import Item, Options
from mupvss.export.regions import regions
from mupvss.files import write_text


class YoloWriter:
    """yolo/labels/NAME.txt: class number from 0, then x and y of each point as shares of width and height; yolo/data.yaml."""

    def __init__(self, out: Path, options: Options) -> None:
        self.root, self.options = out / "yolo", options

    def add(self, item: Item) -> None:
        size = np.array(item.labels.shape[::-1])
        lines = [
            " ".join([str(region.class_id - 1), *(f"{value:.6f}" for value in (ring / size).ravel())])
            for region in regions(item, self.options)
            for ring in region.outlines(self.options.tolerance)
        ]
        write_text(self.root / "labels" / f"{item.stem}.txt", "".join(f"{line}\n" for line in lines))

    def close(self) -> None:
        names = "".join(f"  {i}: {json.dumps(name)}\n" for i, name in enumerate(self.options.classes))
        write_text(self.root / "data.yaml", f"path: .\ntrain: images\nval: images\nnames:\n{names}")
