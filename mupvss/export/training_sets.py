"""Formats for training with other tools: Pascal VOC's folders, and YOLO segmentation."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mupvss.data.masks import IGNORE, voc_palette, write_palette_png
from mupvss.export.regions import Item, Options, regions
from mupvss.files import write_text

MAX_OBJECTS = 254
"""Object masks are 8-bit and 255 is void, so only this number of objects, the largest, have an id; the others are void."""


class VocWriter:
    """voc/..., the layout `data.source = "voc"` reads; pictures are not copied."""

    def __init__(self, out: Path, options: Options) -> None:
        self.root, self.options = out / "voc", options
        self.names: dict[str, None] = {}

    def add(self, item: Item) -> None:
        name = item.stem.replace("/", "__")
        while name in self.names:  # a/b.jpg and a__b.jpg
            name += "_"
        self.names[name] = None
        write_palette_png(self.root / "SegmentationClass" / f"{name}.png", item.labels)
        objects = np.where(item.labels == IGNORE, IGNORE, 0).astype(np.uint8)
        top = ElementTree.Element("annotation")
        _text(top, "filename", item.name)
        size = ElementTree.SubElement(top, "size")
        for key, value in zip(("width", "height", "depth"), (*item.labels.shape[::-1], 3), strict=True):
            _text(size, key, str(value))
        _text(top, "segmented", "1")
        found = sorted(regions(item, self.options), key=lambda region: -region.area)
        for number, region in enumerate(found, 1):
            objects[region.full(objects.shape)] = min(number, IGNORE) if number <= MAX_OBJECTS else IGNORE
            entry = ElementTree.SubElement(top, "object")
            _text(entry, "name", region.class_name)
            _text(entry, "difficult", "0")
            box = ElementTree.SubElement(entry, "bndbox")
            left, upper, right, lower = region.box  # VOC counts from 1 and includes the last pixel
            for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (left + 1, upper + 1, right, lower), strict=True):
                _text(box, key, str(value))
        write_palette_png(self.root / "SegmentationObject" / f"{name}.png", objects)
        ElementTree.indent(top)
        write_text(self.root / "Annotations" / f"{name}.xml", ElementTree.tostring(top, encoding="unicode") + "\n")

    def close(self) -> None:
        write_text(self.root / "ImageSets" / "Segmentation" / "all.txt", "".join(f"{name}\n" for name in self.names))
        colours = voc_palette().tolist()
        lines = ("{}:{},{},{}::".format(name, *colours[i]) for i, name in enumerate(("background", *self.options.classes)))
        write_text(self.root / "labelmap.txt", "# label:color_rgb:parts:actions\n" + "".join(f"{line}\n" for line in lines))


def _text(parent: ElementTree.Element, key: str, value: str) -> None:
    ElementTree.SubElement(parent, key).text = value


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
