"""The formats by name; a new one is one file and one line.

No library is used: datumaro writes most of them, but pins Pillow and OpenCV to versions before ours and needs pandas and pyarrow.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mupvss.errors import UserError
from mupvss.export.coco import CocoWriter
from mupvss.export.labelling_tools import CvatWriter, LabelMeWriter, LabelStudioWriter
from mupvss.export.pictures import CutoutWriter, MaskWriter, OverlayWriter
from mupvss.export.regions import Item, Options, Writer
from mupvss.export.training_sets import VocWriter, YoloWriter
from mupvss.runtime.log import progress_bar

FORMATS: dict[str, Callable[[Path, Options], Writer]] = {
    "masks": MaskWriter,
    "overlay": OverlayWriter,
    "cutouts": CutoutWriter,
    "coco": CocoWriter,
    "coco-polygons": functools.partial(CocoWriter, polygons=True),
    "voc": VocWriter,
    "labelme": LabelMeWriter,
    "label-studio": LabelStudioWriter,
    "cvat": CvatWriter,
    "yolo": YoloWriter,
}


def export_all(items: Iterable[Item], count: int, formats: Sequence[str], out: Path, options: Options) -> None:
    """Writes `count` items in each format. UserError for an unknown format."""
    check_formats(formats)
    writers = [FORMATS[name](out, options) for name in formats]
    with progress_bar("export", count, "pictures") as advance:
        for item in items:
            for writer in writers:
                writer.add(item)
            advance(1)
    for writer in writers:
        writer.close()


def check_formats(formats: Sequence[str]) -> None:
    unknown = [name for name in formats if name not in FORMATS]
    if unknown:
        raise UserError(f"no format '{unknown[0]}'; choose from {', '.join(FORMATS)}")
