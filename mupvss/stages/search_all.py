"""Searches every picture of a data set: seeds of several kinds on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mupvss.data.sample import Dataset, Sample
from mupvss.engine.each import each
from mupvss.errors import DataError
from mupvss.predictor import Predictor
from mupvss.search.seeds import Seeds, read_seeds, write_seeds


def search_all(predictor: Predictor, dataset: Dataset, kinds: Sequence[str], folder: Path) -> None:
    """Writes folder/maps/KIND/NAME.npz for every picture, tagged classes only; pictures that have them are skipped."""
    for sample in each(folder.name, dataset.samples):
        paths = {kind: seed_path(folder, kind, sample.name) for kind in kinds}
        if not all(path.is_file() for path in paths.values()):
            image = sample.open_image()
            classes = [i for i, name in enumerate(dataset.classes) if name in sample.tags]
            found = predictor.search(image, classes, kinds)
            for kind, path in paths.items():
                write_seeds(path, found[kind])


def seed_path(folder: Path, kind: str, name: str) -> Path:
    return folder / "maps" / kind / f"{name}.npz"


def read_seeds_for(image: Image.Image, sample: Sample, path: Path) -> Seeds:
    """The seeds of a picture, checked to be of its size."""
    seeds = read_seeds(path)
    if seeds.size != (image.height, image.width):
        raise DataError(
            f"{path}: seeds of a picture of {seeds.size[0]}x{seeds.size[1]} pixels, but {sample.origin} has "
            f"{image.height}x{image.width}; delete the file and run 'seeds' again"
        )
    return seeds
