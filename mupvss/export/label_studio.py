"""Label Studio: tasks with polygons as predictions, to be accepted or corrected there."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

import mupvss
from mupvss.evaluation.palette import voc_palette
from mupvss.export.item import Item, Options
from mupvss.export.regions import regions
from mupvss.files import write_json, write_text

PREFIX = "/data/local-files/?d="
"""How Label Studio names pictures of its local storage."""


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
        prediction = {"model_version": f"mupvss {mupvss.__version__}", "result": found}
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
