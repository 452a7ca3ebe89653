"""CVAT for images 1.1: every region an exact mask in run lengths."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from mupvss.evaluation.palette import voc_palette
from mupvss.export.item import Item, Options
from mupvss.export.regions import regions
from mupvss.files import write_text


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
    """(h, w) bool, row by row -> lengths of runs in turn outside and inside, the first one outside (0 where there is none)."""
    flat = np.concatenate(([False], mask.ravel()))
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate(([0], changes, [mask.size]))).tolist()
