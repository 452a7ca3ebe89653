"""`mupvss data draw`: built-in scenes as a folder of pictures with a table of tags, to try things on."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from mupvss.config.schema import DataConfig, ScenesConfig
from mupvss.data.scenes.source import load_scenes
from mupvss.data.tags import write_tags
from mupvss.engine.log import progress_bar
from mupvss.errors import DataError
from mupvss.evaluation.palette import write_palette_png
from mupvss.files import save_image


def draw_folder(out: Path, count: int, size: int, seed: int, masks: bool) -> None:
    """-> OUT/pictures/NAME.png, OUT/tags.csv and, if asked for, the true masks in OUT/masks."""
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: is not empty; give another folder")
    dataset = load_scenes(DataConfig(scenes=ScenesConfig(size=size, seed=seed, train=count)), "train")
    with progress_bar("draw", count, "pictures") as advance:
        for sample in dataset.samples:
            save_image(out / "pictures" / f"{sample.name}.png", sample.open_image())
            if masks and sample.open_mask is not None:
                write_palette_png(out / "masks" / f"{sample.name}.png", sample.open_mask())
            advance(1)
    write_tags(out / "tags.csv", {f"{sample.name}.png": sample.tags for sample in dataset.samples})
    Console().print(f"{count} pictures in {out / 'pictures'}, tags in {out / 'tags.csv'}", highlight=False, soft_wrap=True)
