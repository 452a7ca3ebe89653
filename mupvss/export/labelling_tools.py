"""For labelling tools: CVAT for images 1.1, Label Studio, LabelMe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from mupvss.data.masks import voc_palette
from mupvss.export.regions import Item, Options, regions
from mupvss.files import write_json, write_text
from mupvss.version import VERSION


class CvatWriter:
    """cvat.xml."""

    def __init__(self, out: Path, options: Options) -> None:
        self.path, self.options, self.count = out / "cvat.xml", options, 0
        self.top = ElementTree.Element("annotations")
        ElementTree.SubElement(self.top, "version").text = "1.1"
        task = ElementTree.SubElement(ElementTree.SubElement(self.top, "meta"), "task")
        labels = ElementTree.SubElement(task, "labels")
        for class_id, name in enumerate(options.classes, 1):
            entry = ElementTree.SubElement(labels, "label")
            ElementTree.SubElement(entry, "name").text = name
            red, green, blue = voc_palette()[class_id].tolist()
            ElementTree.SubElement(entry, "color").text = f"#{red:02x}{green:02x}{blue:02x}"

    def add(self, item: Item) -> None:
        height, width = item.labels.shape
        picture = ElementTree.SubElement(
            self.top, "image", id=str(self.count), name=item.name, width=str(width), height=str(height)
        )
        self.count += 1
        for region in regions(item, self.options):
            left, top, right, bottom = region.box
            ElementTree.SubElement(
                picture,
                "mask",
                label=region.class_name,
                source="auto",
                occluded="0",
                rle=", ".join(map(str, row_run_lengths(region.mask))),
                left=str(left),
                top=str(top),
                width=str(right - left),
                height=str(bottom - top),
                z_order="0",
            )

    def close(self) -> None:
        ElementTree.indent(self.top)
        write_text(self.path, ElementTree.tostring(self.top, encoding="unicode", xml_declaration=True) + "\n")


def row_run_lengths(mask: np.ndarray) -> list[int]:
    """(h, w) bool, row by row -> lengths of the runs, outside and inside in turn; the first is outside (0 if there is none)."""
    flat = np.concatenate(([False], mask.ravel()))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate(([0], changes, [mask.size]))).tolist()


PREFIX = "/data/local-files/?d="
"""Prefix of Label Studio's addresses for pictures in its local storage."""


class LabelStudioWriter:
    """label-studio.json (import it) and label-studio.xml (the project's labelling interface)."""

    def __init__(self, out: Path, options: Options) -> None:
        self.out, self.options = out, options
        self.tasks: list[dict[str, Any]] = []

    def add(self, item: Item) -> None:
        height, width = item.labels.shape
        found = [
            {
                "id": f"region-{number}-{part}",
                "type": "polygonlabels",
                "from_name": "label",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {
                    "points": (ring * 100 / np.array([width, height])).round(4).tolist(),
                    "polygonlabels": [region.class_name],
                    "closed": True,
                },
            }
            for number, region in enumerate(regions(item, self.options), 1)
            for part, ring in enumerate(region.outlines(self.options.tolerance), 1)
        ]
        prediction = {"model_version": f"mupvss {VERSION}", "result": found}
        self.tasks.append({"data": {"image": PREFIX + quote(item.name)}, "predictions": [prediction]})

    def close(self) -> None:
        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Image", name="image", value="$image")
        labels = ElementTree.SubElement(view, "PolygonLabels", name="label", toName="image")
        for class_id, name in enumerate(self.options.classes, 1):
            red, green, blue = voc_palette()[class_id].tolist()
            ElementTree.SubElement(labels, "Label", value=name, background=f"#{red:02x}{green:02x}{blue:02x}")
        ElementTree.indent(view)
        write_json(self.out / "label-studio.json", self.tasks)
        write_text(self.out / "label-studio.xml", ElementTree.tostring(view, encoding="unicode") + "\n")


LABELME = "5.5.0"
"""Version of LabelMe's file format."""


class LabelMeWriter:
    """labelme/NAME.json, with the picture's path relative to that file."""

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
                "version": LABELME,
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
