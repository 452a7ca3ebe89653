"""Commands for your own pictures: write a first config, make masks in any format, open the local web page."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.console import Console

from mupvss.errors import ConfigError, MissingExtraError
from mupvss.start.backbones import Word


@dataclasses.dataclass(frozen=True)
class InitArguments:
    pictures: Annotated[Path | None, tyro.conf.Positional] = None
    """Folder of the pictures. Without it, the command asks for it."""
    tags: Path | None = None
    """Tags: .csv or .jsonl, COCO or Label Studio .json, CVAT .xml, a folder of VOC's XML; default: one folder per tag."""
    val_tags: Path | None = None
    """Tags of a validation set, to test the segmentation network on; `mupvss data split` writes both tables."""
    out: Path | None = None
    """Config file to write; default: the folder's name with .toml, in the current folder."""
    backbone: Word = "tiny"
    """Pretrained network: tiny (DeiT-Ti) is fast; small (DeiT-S) is larger and takes about four times as long, and so do the
    others that are called small; whether its masks are better was not measured.
    The weights of dinov3-small have a licence of their own."""
    weights: str | None = None
    """Pretrained weights: a path, a URL with its hash, a hub name, package:drawn (for drawings), or an empty text for none.
    Default: from the hub."""
    force: bool = False
    """Overwrite an existing config."""
    quick: bool = False
    """Skip the time estimate."""
    separator: str | None = None
    """Separator of the tags in a cell of a CSV, such as ' '. Default: any of | ; and comma."""
    tag_columns: tuple[str, ...] = ()
    """Columns of a CSV that hold tags, if they are not called tags, labels or the like."""
    background: Literal["some", "none"] = "some"
    """none: every pixel belongs to one of its picture's tags (land cover, tissue, whole scenes); some: part of a picture may
    belong to none of them."""


def init(argv: Sequence[str]) -> None:
    """Write a commented config for your own pictures, and estimate how long it will take."""
    arguments = tyro.cli(InitArguments, prog="mupvss init", args=list(argv))
    from mupvss.start.init import Wishes, initialise

    pictures, tags = arguments.pictures, arguments.tags
    if pictures is None:
        pictures, tags = _ask(tags)
    out = arguments.out or Path(f"{pictures.resolve().name}.toml")
    options = (
        arguments.backbone,
        arguments.weights,
        arguments.force,
        arguments.quick,
        arguments.separator,
        arguments.tag_columns,
        arguments.background,
    )
    initialise(Wishes(pictures, tags, arguments.val_tags, out, *options))


def _ask(tags: Path | None) -> tuple[Path, Path | None]:
    if not sys.stdin.isatty():
        raise ConfigError("mupvss init needs the folder of your pictures, as in: mupvss init pictures --tags tags.csv")
    pictures = Path(_answer("Folder of the pictures: ")).expanduser()
    if tags is None:
        text = input("Tag file (csv, jsonl, COCO or Label Studio json, CVAT xml, folder of VOC xml; empty: one folder per tag): ")
        tags = Path(text.strip()).expanduser() if text.strip() else None
    return pictures, tags


def _answer(question: str) -> str:
    while not (text := input(question).strip()):
        pass
    return text


@dataclasses.dataclass(frozen=True)
class PredictArguments:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run, or a checkpoint (.safetensors, .onnx)."""
    pictures: Annotated[tuple[str, ...], tyro.conf.Positional]
    """Files, folders (searched recursively) or patterns like 'holiday/*.jpg'."""
    out: Path = Path("predictions")
    """Output folder."""
    formats: tuple[str, ...] = ("masks", "overlay")
    """Any of masks, overlay, cutouts, coco, coco-polygons, voc, labelme, label-studio, cvat, yolo."""
    tags: Path | None = None
    """Tags of the pictures, if known, in any form that `data.tags` accepts; only these classes are searched for."""
    tag: tuple[str, ...] = ()
    """Tags that apply to all pictures."""
    classifier: bool = False
    """Use the run's classifier and its search, even if the run has a segmentation network."""
    device: str = "auto"
    min_pixels: int = 16
    """Ignore regions smaller than this in objects and outlines."""
    tolerance: float = 1.0
    """Polygon tolerance in pixels."""


def predict(argv: Sequence[str]) -> int:
    """Make masks of pictures with a trained run: PNG, overlays, cut-outs, COCO, VOC, LabelMe, Label Studio, CVAT, YOLO."""
    arguments = tyro.cli(PredictArguments, prog="mupvss predict", args=list(argv))
    if not arguments.pictures:
        raise ConfigError("mupvss predict needs a run and pictures, as in: mupvss predict runs/mine pictures/")
    from mupvss.export.predict_folder import Request, predict_folder

    return predict_folder(Request(**{f.name: getattr(arguments, f.name) for f in dataclasses.fields(arguments)}))


@dataclasses.dataclass(frozen=True)
class StudioArguments:
    run: Annotated[Path, tyro.conf.Positional]
    """Folder of a run with a trained network."""
    pictures: Path | None = None
    """Folder of additional pictures."""
    out: Path | None = None
    """Folder for decisions, masks and exports; default: RUN/studio."""
    port: int = 8765
    host: str = "127.0.0.1"
    """Address to listen on. Any address but this computer's own requires the token that is printed."""
    device: str = "auto"


def studio(argv: Sequence[str]) -> None:
    """Review masks in the browser: correct tags, repaint, accept, export."""
    arguments = tyro.cli(StudioArguments, prog="mupvss studio", args=list(argv))
    try:
        import uvicorn

        from mupvss.studio.server import create_app
    except ImportError as error:
        raise MissingExtraError(f"the studio needs the extra 'studio' ({error}): pip install 'mupvss[studio]'") from None
    from mupvss.studio.guard import LOOPBACK, new_token
    from mupvss.studio.workspace import Workspace

    workspace = Workspace(arguments.run, arguments.out, arguments.pictures, arguments.device)
    token = None if arguments.host in LOOPBACK else new_token()
    app = create_app(workspace, arguments.port, arguments.host, token)
    address = f"http://{arguments.host}:{arguments.port}/" + (f"?token={token}" if token else "")
    Console(stderr=True).print(f"studio: {address}   (stop with Ctrl-C)", highlight=False, soft_wrap=True)
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning", limit_concurrency=64)
