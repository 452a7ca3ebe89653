"""LabelMe: one JSON per picture with polygons."""

from __future__ import annotations

import os
from pathlib import Path

from mupvss.export.item import Item, Options
from mupvss.export.regions import regions
from mupvss.files import write_json

VERSION = "5.5.0"
"""Of LabelMe's file format."""


class LabelMeWriter:
    """labelme/NAME.json, which names the picture by its path relative to itself."""

    def __init__(self, out: Path, options: Options) -> None:
        self.folder, self.options = out / "labelme", options

    def add(self, item: Item) -> None:
        path = self.folder / f"{item.stem}.json"
        shapes = [
            {
                "label": region.class_name,
                "points": ring.round(2).tolist(),
                "group_id": number,
                "description": "",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            for number, region in enumerate(regions(item, self.options), 1)
            for ring in region.outlines(self.options.tolerance)
        ]
        height, width = item.labels.shape
        picture = os.path.relpath(item.path.resolve(), path.parent.resolve())
        write_json(
            path,
            {
                "version": VERSION,
                "flags": {},
                "shapes": shapes,
                "imagePath": Path(picture).as_posix(),
                "imageData": None,
                "imageHeight": height,
                "imageWidth": width,
            },
        )

    def close(self) -> None:
        pass
