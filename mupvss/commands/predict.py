"""`mupvss predict`: masks of any pictures, in any format."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from mupvss.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class PredictArguments:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a checkpoint (.safetensors, .onnx)."""
    pictures: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Files, folders (with all below them) or patterns like 'holiday/*.jpg'."""
    out: Path = Path("predictions")
    """Folder for what is written."""
    formats: tuple[str, ...] = ("masks", "overlay")
    """Any of masks, overlay, cutouts, coco, coco-polygons, voc, labelme, label-studio, cvat, yolo."""
    tags: Path | None = None
    """Tags of the pictures, if known (any form `data.tags` takes): nothing else is found in them."""
    tag: tuple[str, ...] = ()
    """Tags that hold for all pictures."""
    classifier: bool = False
    """Use the run's classifier and its search even where there is a segmentation network."""
    device: str = "auto"
    min_pixels: int = 16
    """Smaller regions are left out of objects and outlines."""
    tolerance: float = 1.0
    """Polygons may leave the mask's edge by this many pixels."""


def predict(argv: Sequence[str]) -> int:
    """Masks of your pictures with a trained run: PNG, overlays, cut-outs, COCO, VOC, LabelMe, Label Studio, CVAT, YOLO."""
    arguments = tyro.cli(PredictArguments, prog="mupvss predict", args=list(argv))
    if not arguments.pictures:
        raise ConfigError("mupvss predict needs a run and pictures, as in: mupvss predict runs/mine pictures/")
    from mupvss.predict_folder import Request, predict_folder

    return predict_folder(Request(**{f.name: getattr(arguments, f.name) for f in dataclasses.fields(arguments)}))
