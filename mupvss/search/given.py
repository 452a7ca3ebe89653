"""Seeds of other methods, read from the files that their projects write, so that they can be finished and scored here.

A folder has one file per picture, named like the picture:

- `.npy`: a dictionary from class number to map (H, W), numbered from 0 in the order of the classes (MCTformer, PSA's `out_cam`),
  or from 1 with the background under 0 (PSA's `out_la_crf`);
- `.npy`: a dictionary with `keys`, `cam` (at a quarter of the size) and `high_res` (IRN);
- `.npz`: seeds of this program, from the folder maps/KIND of a run's stage `seeds`;
- `.png`: masks, palette or grey, in which 255 is unsure.

Or it has one `.json` for all pictures: masks in COCO's instance format, run lengths or polygons, whose classes have names.

Nothing in a file is run (`data/pickled.py`).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mupvss.data.coco.index import open_index
from mupvss.data.coco.source import paint
from mupvss.data.masks import IGNORE, MOST_CLASSES, labelmap_of, named_ids, read_label_image
from mupvss.data.names import PictureNames
from mupvss.data.pickled import read_npy
from mupvss.data.sample import Dataset, Sample, evenly
from mupvss.errors import DataError, UserError
from mupvss.ops import enlarged
from mupvss.search.multiscale import canvas_size
from mupvss.search.seeds import Seeds, read_seeds

SUFFIXES = (".npy", ".npz", ".png")
COCO = ".json"
MASKS = (".png", COCO)
NAMED = 5
"""Number of pictures that a message names."""
SMALLEST = 4
"""Shortest side of maps that are resized, in cells."""
STRIDES = range(1, 33)
"""Sizes of a cell, in pixels, that maps smaller than their picture may have."""
HALF = 0.5
"""The threshold of masks."""
UNSURE = 0.49
"""Value of what a mask leaves unsure: background, that a slightly weaker background would not be."""
AGREE = 0.9
"""Share of the files whose numbers must be those of their picture's tags."""
CHECKED, SIZED = 2000, 50
"""Number of files, spread evenly, that are read before anything is made of them; and of pictures whose size is compared."""
BLOCK, BLOCKS = 4096, 16
"""Bytes of a part of a file, and number of parts, by which a change is noticed."""
GIVEN = "given"
"""Kind under which another method's maps are kept."""


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


class CocoMasks:
    """The masks in one file of COCO's instance format."""

    def __init__(self, path: Path, classes: tuple[str, ...]) -> None:
        self.path, self.index = path, open_index(path)
        self.ids = {category: classes.index(name) + 1 for category, name in self.index.categories().items() if name in classes}
        entries = [self.index.entry(place) for place in range(len(self.index))]
        self.entries = {Path(entry.file_name).with_suffix("").as_posix(): entry for entry in entries}
        """By the picture's path without its suffix."""

    def labels(self, name: str) -> np.ndarray:
        """Class ids (H, W) of a picture; categories that are no classes are background."""
        entry = self.entries[name]
        own = [annotation for annotation in self.index.annotations(entry.image) if annotation.category in self.ids]
        return paint(own, (entry.height, entry.width), self.ids, True, f"{self.path}, {entry.file_name}")


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
        self.coco: CocoMasks | None = None
        self.names: dict[str, str] = {}
        """Name of the sample -> that of its masks in `coco`."""
        self.paths = self._find(dataset)
        self.masks_only = all(path.suffix.lower() in MASKS for path in self.paths.values())
        """Whether every file is a mask, which needs no threshold but HALF."""
        self.colours = named_ids(folder, dataset.classes)
        tagged = [sample for sample in dataset.samples if sample.tags and sample.name in self.paths]
        self.numbering = self._numbered(evenly(tagged, CHECKED))
        before = Counter(self.notes)
        for sample in evenly(tagged, SIZED):
            self.seeds(sample)
        self.notes = before
        if len(tagged) > CHECKED:
            self.notes[f"{CHECKED:,} of {len(tagged):,} files were looked at beforehand"] = 0

    def _find(self, dataset: Dataset) -> dict[str, Path]:
        files: dict[str, Path] = {}
        there = seed_files(self.folder)
        if there[0].suffix.lower() == COCO:
            self.coco = CocoMasks(there[0], self.classes)
            if not self.coco.ids:
                named = ", ".join(self.coco.index.categories().values()) or "none"
                raise DataError(f"{there[0]}: none of its categories ({named}) is one of data.classes")
            files, there = dict.fromkeys(self.coco.entries, there[0]), []
        for path in there:
            other = files.setdefault(path.relative_to(self.folder).with_suffix("").as_posix(), path)
            if other != path:
                raise DataError(f"{self.folder}: {other.name} and {path.name} are of the same picture; leave one of them there")
        names, paths, missing = PictureNames(files), dict[str, Path](), []
        users: dict[str, str] = {}
        for sample in dataset.samples:
            match = names.find(sample.name)
            if match.picture is not None:
                paths[sample.name] = path = files[match.picture]
                self.names[sample.name] = match.picture
                if (other_name := users.setdefault(match.picture, sample.name)) != sample.name:
                    raise DataError(
                        f"{path}: {match.picture} fits two pictures, {other_name} and {sample.name}; "
                        "name the files like the pictures"
                    )
                if match.how:
                    self.notes[f"named {match.how}"] += 1
            elif sample.tags:
                missing.append(sample.name)
        if missing:
            raise DataError(
                f"{self.folder}: no maps of {len(missing):,} of the {len(dataset.samples):,} pictures ({_few(missing)}); add "
                "them, or take these pictures out of data.tags"
            )
        if unused := len(files) - len(users):
            what = "files belong" if self.coco is None else "pictures of the file belong"
            self.notes[f"{unused:,} {what} to no picture, left out"] = 0
        return paths

    def _numbered(self, samples: Sequence[Sample]) -> Numbering:
        """Which numbering the tags of most pictures bear out."""
        fitting, read, example, broken = Counter[Numbering](), 0, "", list[str]()
        empty: Path | None = None
        everything = set(range(1, len(self.classes) + 1))
        for sample in samples:
            path, tags = self.paths[sample.name], set(_tagged(sample, self.classes))
            try:
                numbers = self._numbers(sample.name, path)
            except DataError as error:
                broken.append(str(error))
                continue
            if not numbers and path.suffix.lower() != ".npy":
                empty = empty or path  # says nothing of the numbering
                continue
            read += 1
            if path.suffix.lower() == ".npy":  # maps of the tags, or of all classes
                fits = [one for one in NUMBERINGS if set(one.ids(dict.fromkeys(numbers))) in (tags, everything)]
            else:  # masks may lack a tag, but have no other
                fits = list(NUMBERINGS) if numbers <= tags else []
            fitting.update(fits)
            if not fits and not example:
                own = ", ".join(f"{self.classes[i - 1]} ({i})" for i in sorted(tags))
                example = f"{path} has {', '.join(map(str, sorted(numbers)[:NAMED])) or 'none'}, and the picture's tags are {own}"
        if broken:
            shown = [*broken[:NAMED], "..."] if len(broken) > NAMED else broken
            raise DataError("\n".join((f"{len(broken):,} files cannot be read:", *shown)))
        if empty is not None and not read:
            raise DataError(
                f"{self.folder}: no mask has a pixel of any class, as in {empty}. Are these masks of 0 and 255? Class ids are "
                "expected: 0 for the background, 1 for the first class, and 255 where it is not known"
            )
        best, count = fitting.most_common(1)[0] if fitting else (NUMBERINGS[0], 0)
        if count < AGREE * read:
            raise DataError(
                f"{self.folder}: the numbers of the classes are not those of the tags, neither from 0 nor from 1, in "
                f"{read - count:,} of {read:,} files: {example}. List data.classes in the order in which they are numbered; "
                "masks number the classes from 1, and 255 is unsure"
            )
        if any(self.paths[sample.name].suffix.lower() == ".npy" for sample in samples):
            self.notes[f"maps are numbered {best.text}, as the tags of {count:,} of {read:,} pictures say"] = 0
        return best

    def _labels(self, name: str, path: Path) -> np.ndarray:
        return read_label_image(path, self.colours) if self.coco is None else self.coco.labels(self.names[name])

    def _numbers(self, name: str, path: Path) -> set[int]:
        """The numbers of the classes in a picture's file, as they stand there."""
        suffix = path.suffix.lower()
        if suffix == ".npy":
            return set(_maps_of(read_npy(path), path))
        if suffix == ".npz":
            return set(read_seeds(path).ids.tolist())
        return set(np.unique(self._labels(name, path)).tolist()) - {0, IGNORE}

    def seeds(self, sample: Sample) -> Seeds:
        """The maps of one picture, of its tagged classes, in [0, 1]. DataError if they do not fit the picture."""
        image = sample.open_image()
        size, tags = (image.height, image.width), _tagged(sample, self.classes)
        path = self.paths.get(sample.name)
        ids = np.array(tags, np.int16)
        if path is None or not tags:
            return Seeds(ids, np.zeros((len(tags), *size), np.float32), size, 1)
        suffix, stride = path.suffix.lower(), 1
        if suffix == ".npz":
            found = read_seeds(path)
            if found.size != size:
                raise _misfit(path, found.size, size)
            by_id, stride = dict(zip(found.ids.tolist(), found.maps, strict=True)), found.stride
        elif suffix in MASKS:
            labels = self._labels(sample.name, path)
            if labels.shape != size:
                raise _misfit(path, labels.shape, size)
            by_id = {int(i): labels == i for i in np.unique(labels) if i not in (0, IGNORE)}
        else:
            maps = _maps_of(read_npy(path), path)
            background = maps.get(0) if self.numbering.first == 1 else None
            by_id = {i: _against(maps[key], background) for i, key in self.numbering.ids(maps).items()}
            own = _stride(next(iter(by_id.values())).shape, size) if by_id else 1
            if own is None:
                by_id = {i: _resized(one, size, path) for i, one in by_id.items()}
                self.notes["maps of another size than their picture, resized"] += 1
            stride = own or 1
        if not set(by_id) & set(tags):
            by_id, stride = {}, 1
        finished = self._for(tags, by_id, size, path)
        if suffix in MASKS:
            finished = np.maximum(finished, UNSURE * (labels == IGNORE)).astype(np.float32)
        return Seeds(ids, finished, size, stride)

    def _for(self, tags: list[int], by_id: Mapping[int, np.ndarray], size: tuple[int, int], path: Path) -> np.ndarray:
        """Maps of the tags (K, h, w) in [0, 1]; without any map, of the picture's size."""
        if missing := [i for i in tags if i not in by_id]:
            self.notes["tags without a map, which find nothing"] += 1
        if set(by_id) - set(tags):
            self.notes["maps of classes that the picture is not tagged with, left out"] += 1
        shape = next(iter(by_id.values())).shape if by_id else size
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

    def remarks(self, notes: Mapping[str, int]) -> Iterator[str]:
        """What was left out or guessed, as sentences without an end. notes: `notes` of this process, or of several together."""
        for text, count in sorted(notes.items()):
            yield f"{count:,} picture{'' if count == 1 else 's'}: {text}" if count else text


def seed_files(folder: Path) -> list[Path]:
    """The files of seeds in a folder and below it. UserError if there are none."""
    if not folder.is_dir():
        raise UserError(f"search.given: {folder} is no folder; expected the folder of another method's maps")
    read = (*SUFFIXES, COCO)
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in read and path.is_file())
    found = [path for path in files if path.suffix.lower() in SUFFIXES]
    coco = [path for path in files if path.suffix.lower() == COCO]
    if not found and len(coco) == 1:
        return coco
    if not found:
        there = f"; it has {len(coco)} {COCO} files, and one that holds the masks of all pictures is expected" if coco else ""
        raise UserError(f"search.given: {folder} has no {', '.join(SUFFIXES)} files and no {COCO} file of COCO{there}")
    return found


def folder_state(folder: Path) -> str:
    """Changes when a file of seeds does: of each, the size and BLOCKS parts spread over it are looked at."""
    known = hashlib.sha256()
    files = seed_files(folder)
    for path in files:
        size = path.stat().st_size
        known.update(f"{path.relative_to(folder).as_posix()} {size}\n".encode())
        with path.open("rb") as stream:
            for place in range(0, size, max(BLOCK, size // BLOCKS)):
                stream.seek(place)
                known.update(stream.read(BLOCK))
    if any(path.suffix.lower() == ".png" for path in files) and (key := labelmap_of(folder)) is not None:
        known.update(key.read_bytes())
    return known.hexdigest()


def _few(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")


def _tagged(sample: Sample, classes: tuple[str, ...]) -> list[int]:
    return [i for i, name in enumerate(classes, 1) if name in sample.tags]


def _misfit(path: Path, found: tuple[int, ...], size: tuple[int, int]) -> DataError:
    turned = "; perhaps the picture is turned by its EXIF entry, and the maps are not" if found == size[::-1] else ""
    return DataError(f"{path}: of {found[0]}x{found[1]} cells, but its picture has {size[0]}x{size[1]} pixels{turned}")


def _maps_of(content: Any, path: Path) -> dict[int, np.ndarray]:
    """The maps by their number."""
    if isinstance(content, dict) and "keys" in content:
        keys = np.asarray(content["keys"]).ravel()
        maps = content.get("high_res", content.get("cam"))
        if not isinstance(maps, np.ndarray) or maps.ndim != 3 or len(maps) != len(keys) or keys.dtype.kind not in "iu":
            raise DataError(f"{path}: expected IRN's keys (K) and high_res or cam (K, H, W)")
        if len(keys) and not 0 <= keys.min() <= keys.max() <= MOST_CLASSES:
            raise DataError(f"{path}: its keys are no numbers of classes from 0 to {MOST_CLASSES}")
        return dict(zip(map(int, keys), maps, strict=True))
    if not isinstance(content, dict):
        raise DataError(f"{path}: holds a {type(content).__name__}; expected a dictionary from class number to map")
    found = {}
    for key, own in content.items():
        number = _number(key)
        if number is None or not isinstance(own, np.ndarray) or own.ndim != 2 or own.dtype.kind not in "biuf":
            raise DataError(f"{path}: has an entry that is no map (H, W) of a class from 0 to {MOST_CLASSES}")
        found[number] = own
    if found and all(own.dtype == np.uint8 for own in found.values()) and max(own.max(initial=0) for own in found.values()) > 1:
        return {number: own / 255 for number, own in found.items()}
    return found


def _number(key: Any) -> int | None:
    """The number that a key means; None if it is none."""
    if isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) <= len(str(MOST_CLASSES)):
        key = int(key)
    return key if isinstance(key, int) and not isinstance(key, bool) and 0 <= key <= MOST_CLASSES else None


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
    if min(own.shape) < SMALLEST or abs(height * size[1] - width * size[0]) > max(size) + 0.02 * height * size[1]:
        raise _misfit(path, own.shape, size)
    return enlarged(torch.from_numpy(own.astype(np.float32)), size).numpy()
