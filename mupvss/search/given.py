"""Seeds of other methods, read from the files that their projects write, so that they can be finished and scored here.

A folder has one file per picture, named like the picture:

- `.npy`: a dictionary from class number to map (H, W), numbered from 0 in the order of the classes (MCTformer, PSA's `out_cam`),
  or from 1 with the background under 0 (PSA's `out_la_crf`);
- `.npy`: a dictionary with `keys`, `cam` (at a quarter of the size) and `high_res` (IRN);
- `.npz`: seeds of this program, from the folder maps/KIND of a run's stage `seeds`;
- `.png`: masks, palette or grey, in which 255 is unsure.

No pickle is loaded (`data/pickled.py`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mupvss.data.masks import IGNORE, read_label_image
from mupvss.data.names import PictureNames
from mupvss.data.pickled import read_npy
from mupvss.data.sample import Dataset, Sample
from mupvss.errors import DataError, UserError
from mupvss.files import file_state
from mupvss.ops import enlarged
from mupvss.search.multiscale import canvas_size
from mupvss.search.seeds import Seeds, read_seeds

SUFFIXES = (".npy", ".npz", ".png")
NAMED = 5
"""Number of pictures that a message names."""
STRIDES = range(1, 33)
"""Sizes of a cell, in pixels, that maps smaller than their picture may have."""
HALF = 0.5
"""Value of what a mask leaves unsure, and the threshold of masks."""
AGREE = 0.5
"""Share of the pictures whose tags the numbers must be for a numbering to be believed."""


@dataclass(frozen=True)
class Numbering:
    """How the maps of a dictionary are numbered."""

    first: int
    """Number of the first class."""
    text: str

    def ids(self, keys: Mapping[int, Any]) -> dict[int, int]:
        """Class id from 1 -> key; without the background's."""
        return {key - self.first + 1: key for key in keys if key >= self.first}


NUMBERINGS = (Numbering(0, "from 0"), Numbering(1, "from 1, with the background as 0"))


class GivenSeeds:
    """The seeds in a folder, for the pictures of a data set."""

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        """Finds every picture's file and how the classes are numbered.

        Raises:
            UserError: if the folder is missing or has no such file.
            DataError: if tagged pictures have no file, files cannot be read, or the numbers are not those of the tags.
        """
        self.folder, self.classes = folder, dataset.classes
        self.notes: Counter[str] = Counter()
        """What was left out or guessed, and for how many pictures."""
        self.paths = self._find(dataset)
        self.masks_only = all(path.suffix == ".png" for path in self.paths.values())
        """Whether every file is a mask, which needs no threshold but HALF."""
        self.numbering = self._numbered(dataset)

    def _find(self, dataset: Dataset) -> dict[str, Path]:
        files = {path.relative_to(self.folder).with_suffix("").as_posix(): path for path in seed_files(self.folder)}
        names, paths, missing = PictureNames(files), {}, []
        for sample in dataset.samples:
            match = names.find(sample.name)
            if match.picture is not None:
                paths[sample.name] = files[match.picture]
                if match.how:
                    self.notes[f"named {match.how}"] += 1
            elif sample.tags:
                missing.append(sample.name)
        if missing:
            raise DataError(
                f"{self.folder}: no maps of {len(missing):,} of the {len(dataset.samples):,} pictures ({_few(missing)}); add "
                "them, or take these pictures out of data.tags"
            )
        if unused := len(files) - len(set(paths.values())):
            self.notes[f"{unused:,} files belong to no picture, left out"] = 0
        return paths

    def _numbered(self, dataset: Dataset) -> Numbering:
        fitting, dictionaries, example, broken = Counter[Numbering](), 0, "", []
        for sample in dataset.samples:
            path = self.paths.get(sample.name)
            if path is None or path.suffix != ".npy" or not sample.tags:
                continue
            try:
                maps = _maps_of(read_npy(path), path)
            except DataError as error:
                broken.append(str(error))
                continue
            dictionaries += 1
            tags = _tagged(sample, self.classes)
            fits = [numbering for numbering in NUMBERINGS if set(numbering.ids(maps)) == set(tags)]
            fitting.update(fits)
            if not fits and not example:
                own = ", ".join(f"{self.classes[i - 1]} ({i})" for i in tags)
                example = f"{path} has maps numbered {', '.join(map(str, maps))}, and the picture's tags are {own}"
        if broken:
            raise DataError(
                "\n".join([f"{len(broken):,} files cannot be read:", *broken[:NAMED], *(["..."] if broken[NAMED:] else [])])
            )
        best, count = fitting.most_common(1)[0] if fitting else (NUMBERINGS[0], 0)
        if dictionaries and count < AGREE * dictionaries:
            raise DataError(
                f"{self.folder}: the numbers of the maps are not those of the tags, neither from 0 nor from 1: {example}. List "
                "data.classes in the order in which the maps are numbered"
            )
        if dictionaries:
            self.notes[f"maps are numbered {best.text}, as the tags of {count:,} of {dictionaries:,} pictures say"] = 0
        return best

    def seeds(self, sample: Sample) -> Seeds:
        """The maps of one picture, of its tagged classes, in [0, 1]. DataError if they do not fit the picture."""
        image = sample.open_image()
        size, tags = (image.height, image.width), _tagged(sample, self.classes)
        path = self.paths.get(sample.name)
        ids = np.array(tags, np.int16)
        if path is None or not tags:
            return Seeds(ids, np.zeros((len(tags), *size), np.float32), size, 1)
        if path.suffix == ".npz":
            found = read_seeds(path)
            if found.size != size:
                raise _misfit(path, found.size, size)
            return Seeds(ids, self._for(tags, dict(zip(found.ids.tolist(), found.maps, strict=True)), path), size, found.stride)
        if path.suffix == ".png":
            labels = read_label_image(path)
            if labels.shape != size:
                raise _misfit(path, labels.shape, size)
            unsure = HALF * (labels == IGNORE)
            present = {int(i): labels == i for i in np.unique(labels) if i not in (0, IGNORE)}
            sure = self._for(tags, present, path) if present else np.zeros((len(tags), *size), np.float32)
            return Seeds(ids, np.maximum(sure, unsure).astype(np.float32), size, 1)
        maps = _maps_of(read_npy(path), path)
        background = maps.get(0) if self.numbering.first == 1 else None
        by_id = {i: _against(maps[key], background) for i, key in self.numbering.ids(maps).items()}
        stride = _stride(next(iter(by_id.values())).shape if by_id else size, size)
        if stride is None:
            by_id = {i: _resized(own, size, path) for i, own in by_id.items()}
            self.notes["maps of another size than their picture, resized"] += 1
        return Seeds(ids, self._for(tags, by_id, path), size, stride or 1)

    def _for(self, tags: list[int], by_id: Mapping[int, np.ndarray], path: Path) -> np.ndarray:
        """Maps of the tags (K, h, w) in [0, 1]."""
        if missing := [i for i in tags if i not in by_id]:
            self.notes["tags without a map, which find nothing"] += 1
        if set(by_id) - set(tags):
            self.notes["maps of classes that the picture is not tagged with, left out"] += 1
        shape = next(iter(by_id.values())).shape if by_id else (1, 1)
        if len({own.shape for own in by_id.values()}) > 1:
            raise DataError(f"{path}: has maps of different sizes")
        found = np.stack([np.zeros(shape, np.float32) if i in missing else by_id[i].astype(np.float32) for i in tags])
        if not np.isfinite(found).all():
            raise DataError(f"{path}: has values that are no numbers (NaN or infinite)")
        if found.min() < 0:
            self.notes["negative values, set to 0"] += 1
            found = found.clip(0)
        if found.max() > 1 + 1e-3:
            self.notes["values over 1, divided by the picture's largest"] += 1
            found /= found.max()
        return found.clip(0, 1)

    def remarks(self) -> Iterator[str]:
        """What was left out or guessed, as sentences without an end."""
        for text, count in sorted(self.notes.items()):
            yield f"{count:,} pictures: {text}" if count else text


def seed_files(folder: Path) -> list[Path]:
    """The files of seeds in a folder and below it. UserError if there are none."""
    if not folder.is_dir():
        raise UserError(f"search.given: {folder} is no folder; expected the folder of another method's maps")
    found = sorted(path for path in folder.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    if not found:
        raise UserError(f"search.given: {folder} has no {', '.join(SUFFIXES)} files")
    return found


def folder_state(folder: Path) -> str:
    """Changes when a file of seeds does."""
    states = [(path.relative_to(folder).as_posix(), file_state(str(path))) for path in seed_files(folder)]
    return hashlib.sha256(repr(states).encode()).hexdigest()


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _tagged(sample: Sample, classes: tuple[str, ...]) -> list[int]:
    return [i for i, name in enumerate(classes, 1) if name in sample.tags]


def _misfit(path: Path, found: tuple[int, ...], size: tuple[int, int]) -> DataError:
    return DataError(f"{path}: of {found[0]}x{found[1]} cells, but its picture has {size[0]}x{size[1]} pixels")


def _maps_of(content: Any, path: Path) -> dict[int, np.ndarray]:
    """The maps by their number."""
    if isinstance(content, dict) and "keys" in content:
        keys = np.asarray(content["keys"]).ravel()
        maps = content.get("high_res", content.get("cam"))
        if not isinstance(maps, np.ndarray) or maps.ndim != 3 or len(maps) != len(keys) or keys.dtype.kind not in "iu":
            raise DataError(f"{path}: expected IRN's keys (K) and high_res or cam (K, H, W)")
        return dict(zip(map(int, keys), maps, strict=True))
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected a dictionary from class number to map")
    found = {}
    for key, own in content.items():
        number = int(key) if isinstance(key, int) or (isinstance(key, str) and key.isdigit()) else None
        if number is None or number < 0 or not isinstance(own, np.ndarray) or own.ndim != 2 or own.dtype.kind not in "biuf":
            raise DataError(f"{path}: its entry '{key}' is no map (H, W) of a class number")
        found[number] = own / 255 if own.dtype == np.uint8 and own.max(initial=0) > 1 else own
    return found


def _against(own: np.ndarray, background: np.ndarray | None) -> np.ndarray:
    """A class's probability against the background's, so that 0.5 is where they are equal."""
    if background is None or background.shape != own.shape:
        return own
    return own / np.maximum(own + background, 1e-9)


def _stride(shape: tuple[int, ...], size: tuple[int, int]) -> int | None:
    """Pixels per cell, if the map is a canvas of the picture."""
    return next((stride for stride in STRIDES if tuple(shape) == canvas_size(size[1], size[0], stride)), None)


def _resized(own: np.ndarray, size: tuple[int, int], path: Path) -> np.ndarray:
    height, width = own.shape
    if abs(height * size[1] - width * size[0]) > max(size) + 0.02 * height * size[1]:
        raise _misfit(path, own.shape, size)
    return enlarged(torch.from_numpy(own.astype(np.float32)), size).numpy()
