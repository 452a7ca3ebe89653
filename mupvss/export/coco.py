"""COCO JSON: one annotation per connected region, as run lengths (exact) or as polygons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mupvss.errors import MissingExtraError
from mupvss.export.regions import Item, Options, Region, regions
from mupvss.files import write_json
from mupvss.version import VERSION

RLE, POLYGONS = "coco.json", "coco-polygons.json"


class CocoWriter:
    """coco.json or coco-polygons.json, as pycocotools reads them; category ids are our class ids."""

    def __init__(self, out: Path, options: Options, polygons: bool = False) -> None:
        self.path, self.options, self.polygons = out / (POLYGONS if polygons else RLE), options, polygons
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, item: Item) -> None:
        height, width = item.labels.shape
        number = len(self.images) + 1
        self.images.append({"id": number, "file_name": item.name, "width": width, "height": height})
        for region in regions(item, self.options):
            segmentation = self._polygons(region) if self.polygons else run_lengths(region, (height, width))
            if not segmentation:
                continue
            left, top, right, bottom = region.box
            self.annotations.append(
                {
                    "id": len(self.annotations) + 1,
                    "image_id": number,
                    "category_id": region.class_id,
                    "segmentation": segmentation,
                    "area": region.area,
                    "bbox": [left, top, right - left, bottom - top],
                    "iscrowd": 0,
                }
            )

    def _polygons(self, region: Region) -> list[list[float]]:
        return [ring.round(2).ravel().tolist() for ring in region.outlines(self.options.tolerance)]

    def close(self) -> None:
        categories = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(self.options.classes, 1)]
        info = {"description": "pseudo-masks from image tags", "version": VERSION}
        write_json(
            self.path,
            {"info": info, "licenses": [], "images": self.images, "annotations": self.annotations, "categories": categories},
        )


def run_lengths(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    """COCO's compressed run lengths of the region in a picture of (height, width)."""
    try:
        from pycocotools import mask as coco
    except ImportError:
        raise MissingExtraError("COCO's run lengths need the extra 'export': pip install 'mupvss[export]'") from None
    import numpy as np

    found = coco.encode(np.asfortranarray(region.full(size).astype(np.uint8)))
    return {"size": list(size), "counts": found["counts"].decode("ascii")}
