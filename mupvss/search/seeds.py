"""Seeds on disk: one .npz per picture with plain arrays, readable by anyone with numpy.

ids (K,) int16: class ids from 1. maps (K, h, w) float16 in [0, 1], one cell per stride x stride pixels. size (2,) int32:
the picture's (height, width), to which `Seeds.best` brings the maps. stride () int32.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from mupvss.data.sample import Sample
from mupvss.errors import DataError
from mupvss.files import atomic_path
from mupvss.ops import best_enlarged, enlarged
from mupvss.search.multiscale import canvas_size


@dataclass(frozen=True)
class Seeds:
    ids: np.ndarray
    """(K,) class ids from 1; empty for a picture without a tag."""
    maps: np.ndarray
    """(K, h, w) float in [0, 1]."""
    size: tuple[int, int]
    """(height, width) of the picture."""
    stride: int
    """Pixels per cell of the maps, in either direction."""

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """The highest value over the classes (H, W) float32, and its class id (H, W) uint8, at the picture's size."""
        if len(self.ids) == 0:
            return np.zeros(self.size, np.float32), np.zeros(self.size, np.uint8)
        value, place = best_enlarged(torch.from_numpy(self.maps.astype(np.float32)), self.size)
        return value.numpy(), self.ids.astype(np.uint8)[place.numpy()]

    def full(self) -> np.ndarray:
        """The maps at the picture's size (K, H, W) float32."""
        if len(self.ids) == 0:
            return np.zeros((0, *self.size), np.float32)
        maps = torch.from_numpy(self.maps.astype(np.float32)).unsqueeze(0)
        return F.interpolate(maps, size=self.size, mode="bilinear", align_corners=False)[0].numpy()

    def one(self, place: int) -> np.ndarray:
        """One of the maps at the picture's size (H, W) float32."""
        return enlarged(torch.from_numpy(self.maps[place].astype(np.float32)), self.size).numpy()

    def labels(self, threshold: float) -> np.ndarray:
        """Class ids (H, W) uint8, background (0) where no map reaches the threshold."""
        value, label = self.best()
        return np.where(value >= threshold, label, 0).astype(np.uint8)


def write_seeds(path: Path, seeds: Seeds) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            ids=seeds.ids.astype(np.int16),
            maps=seeds.maps.astype(np.float16),
            size=np.array(seeds.size, np.int32),
            stride=np.int32(seeds.stride),
        )


def read_seeds(path: Path) -> Seeds:
    """Reads a seed file. DataError if it is missing, truncated, or not of this form."""
    try:
        with np.load(path, allow_pickle=False) as file:
            ids, maps, size, stride = file["ids"], file["maps"], file["size"], int(file["stride"].item())
    except FileNotFoundError:
        raise DataError(f"{path}: no such seeds; run the stage 'seeds' first") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # the disk's fault, not the file's
            raise
        # The errors that readers raise for damaged archives have no common base class.
        raise DataError(f"{path}: not a readable seed file ({error}); delete it and run the stage 'seeds' again") from None
    if size.shape != (2,) or ids.ndim != 1 or min(*size, stride) < 1 or maps.dtype.kind != "f" or ids.dtype.kind not in "iu":
        raise DataError(f"{path}: not a seed file (ids, maps, size, stride); delete it and run the stage 'seeds' again")
    height, width = (int(side) for side in size)
    if maps.shape != (len(ids), *canvas_size(width, height, stride)):
        raise DataError(f"{path}: {len(ids)} ids and a picture of {height}x{width}, but maps {maps.shape}; run 'seeds' again")
    return Seeds(ids, maps, (height, width), stride)


def seed_path(folder: Path, kind: str, name: str) -> Path:
    return folder / "maps" / kind / f"{name}.npz"


def read_seeds_for(image: Image.Image, sample: Sample, path: Path) -> Seeds:
    """The seeds of a picture. DataError if they are of another size."""
    seeds = read_seeds(path)
    if seeds.size != (image.height, image.width):
        raise DataError(
            f"{path}: seeds of a picture of {seeds.size[0]}x{seeds.size[1]} pixels, but {sample.origin} has "
            f"{image.height}x{image.width}; delete the file and run 'seeds' again"
        )
    return seeds
