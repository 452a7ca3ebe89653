"""The user's own pictures: one folder per tag, tags in the names of the pictures, or a table of pictures and tags. A picture
without a tag is a valid negative."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mupvss.data.images import read_image
from mupvss.data.masks import MOST_CLASSES, labelmap_of, named_ids, read_label_image
from mupvss.data.names import Fitted, Match, PictureNames, sample_name, stem
from mupvss.data.sample import Dataset, Sample
from mupvss.data.tags import Tags, read_tags
from mupvss.data.tags.file_names import tags_from_names
from mupvss.data.tags.tag_table import counted
from mupvss.data.tags.words import tidy
from mupvss.data.walk import Below, pictures_below
from mupvss.errors import DataError
from mupvss.options import FolderData

NEGATIVE_FOLDERS = frozenset({"_none", "_background", "none", "background"})
"""With one folder per tag, pictures in folders of these names have no tag, unless `data.classes` names the folder."""


def load_folder(config: FolderData, split: str) -> Dataset:
    """All pictures under data.root, or of the table data.tags, for training and seeds alike. val: those of data.val_tags, or
    without it those that have a mask. Masks are PNGs in data.masks, found by the picture's relative path."""
    root = config.root
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set data.root to the folder of your pictures")
    masks = _masks_folder(config)
    notes: list[str] = []
    if config.tags:
        tags, order = _tags_from_table(config, config.tags, masks, notes), None
    else:
        tags, order = _tags_from_folders(config, masks, notes)
    found = sorted({tag for entry in tags.values() for tag in entry})
    classes = tuple(map(tidy, config.classes)) or order or tuple(found)
    if len(classes) > MOST_CLASSES:
        raise DataError(
            f"{config.tags or root}: has {len(classes)} different tags, and a mask can tell {MOST_CLASSES} apart; "
            "name those that matter in data.classes"
        )
    if len(set(classes)) < len(classes):
        raise DataError(f"data.classes: '{next(c for c in classes if classes.count(c) > 1)}' is there twice")
    if not set(classes) & set(found):
        raise DataError(
            f"{config.tags or root}: no picture has any of data.classes ({', '.join(classes) or 'none'}); "
            f"the tags found are {', '.join(found) or 'none'}"
        )
    if split == "val" and config.val_tags is not None:
        notes = []
        tags = _tags_from_table(config, config.val_tags, masks, notes)
    notes += _unknown_tags(tags, classes)
    open_mask, key = _mask_opener(masks, tuple(classes)), None if masks is None else labelmap_of(masks)
    samples = []
    for relative, entry in sorted(tags.items(), key=lambda item: root / item[0]):
        path, mask = root / relative, open_mask(relative)
        samples.append(
            Sample(
                sample_name(relative),
                str(path),
                entry & frozenset(classes),
                functools.partial(read_image, path),
                None if mask is None else mask[1],
                mask_origin=None if mask is None else str(mask[0]),
                mask_key=None if mask is None or key is None else str(key),
            )
        )
    _check_names(samples)
    if masks is not None:
        drawn = sum(sample.open_mask is not None for sample in samples)
        notes.append(f"{drawn} of {len(samples)} pictures have a mask in {masks}")
    if split == "val" and config.val_tags is None:
        samples = [sample for sample in samples if sample.open_mask is not None]
    return Dataset(tuple(classes), samples, tuple(notes))


def _unknown_tags(tags: Tags, classes: Sequence[str]) -> list[str]:
    """A note on tags that are not in data.classes."""
    counts = Counter(tag for entry in tags.values() for tag in entry if tag not in classes)
    if not counts:
        return []
    named = ", ".join(f"{tag} ({count})" for tag, count in counts.most_common(8)) + (", ..." if len(counts) > 8 else "")
    return [f"tags that are not in data.classes, left out: {named}"]


def _tags_from_folders(config: FolderData, masks: Path | None, notes: list[str]) -> tuple[Tags, tuple[str, ...] | None]:
    """The tags by picture, and the order of all classes if the pictures' names have one."""
    root, below = config.root, pictures_below(config.root)
    pictures = [picture for picture in below.pictures if not _is_below(picture, root, masks)]
    if (named := tags_from_names(pictures, config.classes, notes)) is not None:
        notes += _left_out(below)
        return named
    tags: dict[str, frozenset[str]] = {}
    loose: list[str] = []
    untagged: Counter[str] = Counter()
    for picture in pictures:
        folder, _, inside = picture.partition("/")
        if not inside:
            loose.append(picture)
        elif folder.casefold() in NEGATIVE_FOLDERS and tidy(folder) not in map(tidy, config.classes):
            tags[picture] = frozenset()
            untagged[folder] += 1
        else:
            tags[picture] = frozenset({tidy(folder)})
    if not tags:
        raise DataError(f"{root}: no picture in a folder per tag (root/cat/1.jpg); make such folders, or give data.tags")
    if untagged:
        notes.append("folders whose pictures have no tag: " + ", ".join(f"{name} ({n})" for name, n in sorted(untagged.items())))
    if loose:
        notes.append(f"in no folder of a tag, left out: {counted(loose, 'picture')}")
    empty = set(below.folders) - {picture.partition("/")[0] for picture in below.pictures}
    if empty:
        notes.append(f"folders without a picture, left out: {', '.join(sorted(empty))}")
    notes += _left_out(below)
    return tags, None


def _left_out(below: Below) -> list[str]:
    return [note] if (note := below.note()) else []


def _tags_from_table(config: FolderData, path: Path, masks: Path | None, notes: list[str]) -> Tags:
    """Tags by relative path. DataError that names the missing pictures, unless data.unreadable is "skip"."""
    table = read_tags(path, config.separator, config.tag_columns)
    notes += table.notes
    found = _Found(config.root, masks)
    for written, entry in table.tags.items():
        found.add(written, entry)
    notes += found.notes()
    if found.fitted.problems and config.unreadable == "stop":
        shown = "; ".join(found.fitted.problems[:20]) + (
            f"; and {len(found.fitted.problems) - 20} more" if len(found.fitted.problems) > 20 else ""
        )
        many = (
            f"{len(found.fitted.problems)} of {len(table.tags)} pictures cannot be used: "
            if len(found.fitted.problems) > 1
            else ""
        )
        raise DataError(f"{path}: {many}{shown}; check the names and data.root, or set data.unreadable = 'skip'")
    if found.fitted.problems:
        notes.append(
            f"pictures of the table that are not there, left out: {len(found.fitted.problems)} ({found.fitted.problems[0]})"
        )
    if not found.tags:
        raise DataError(f"{path}: none of its pictures is in {config.root}; check data.root")
    return found.tags


class _Found:
    """Pictures of a folder, found by the names of a table."""

    def __init__(self, root: Path, masks: Path | None) -> None:
        self.root, self.masks, self.tags, self.fitted = root, masks, dict[str, frozenset[str]](), Fitted()
        self._names: PictureNames | None = None
        self._below = Below()

    def add(self, written: str, tags: frozenset[str]) -> None:
        exact, outside = self._inside(written)
        if outside:
            self.fitted.problems.append(outside)
            return
        match = self.names.find(written) if exact is None else Match(exact)
        picture = self.fitted.take(written, match, str(self.root))
        if picture is not None:
            self.tags[picture] = self.tags.get(picture, frozenset()) | tags

    def _inside(self, written: str) -> tuple[str | None, str]:
        """The path as it is written, if it is a file of the folder; or None and, for a file outside, why not. A link in the
        folder belongs to it, wherever it leads."""
        root = Path(os.path.normpath(Path.cwd() / self.root))
        for name in (written, written.replace("\\", "/")):
            path = Path(os.path.normpath(root / name))
            try:
                if not path.is_file():
                    continue
            except (OSError, ValueError):  # too long, or with a null byte
                continue
            if path.is_relative_to(root):
                return path.relative_to(root).as_posix(), ""
            if path.resolve().is_relative_to(root.resolve()):
                return path.resolve().relative_to(root.resolve()).as_posix(), ""
            return None, f"picture '{written}' lies outside {self.root}"
        return None, ""

    @property
    def names(self) -> PictureNames:
        """Read on first use. Masks are no pictures."""
        if self._names is None:
            self._below = pictures_below(self.root)
            self._below.pictures = [name for name in self._below.pictures if not _is_below(name, self.root, self.masks)]
            self._names = PictureNames(self._below.pictures)
        return self._names

    def notes(self) -> list[str]:
        notes = [f"{how}: {counted(names, 'name')}" for how, names in sorted(self.fitted.overlooked.items())]
        left = [picture for picture in self.names.pictures if picture not in self.tags]
        if left:
            notes.append(f"in the folder but not in the table, left out: {counted(left, 'picture')}")
        return notes + _left_out(self._below)


def _is_below(picture: str, root: Path, masks: Path | None) -> bool:
    """Whether a picture of `root` lies in the folder of the masks."""
    return masks is not None and masks != root and (root / picture).is_relative_to(masks)


def _masks_folder(config: FolderData) -> Path | None:
    """The folder of true masks; None if there is none. DataError if data.masks was set and is not a folder."""
    for folder in (config.root / config.masks, Path(config.masks)):
        if folder.is_dir():
            return folder
    if config.masks != FolderData.model_fields["masks"].default:
        raise DataError(f"{config.root / config.masks}: no such folder of masks, nor {config.masks}; check data.masks")
    return None


Opener = Callable[[], np.ndarray]


def _mask_opener(folder: Path | None, classes: tuple[str, ...]) -> Callable[[str], tuple[Path, Opener] | None]:
    """A function from a picture's relative path to the file of its mask and a function that reads it."""
    if folder is None:
        return lambda relative: None
    files = {stem(name): folder / name for name in pictures_below(folder).pictures if name.lower().endswith(".png")}
    loose = {name.casefold(): path for name, path in files.items()}
    colours = named_ids(folder, classes)

    def find(relative: str) -> tuple[Path, Opener] | None:
        path = files.get(stem(relative)) or loose.get(stem(relative).casefold())
        return None if path is None else (path, functools.partial(read_label_image, path, colours))

    return find


def _check_names(samples: list[Sample]) -> None:
    seen: dict[str, str] = {}
    for sample in samples:
        other = seen.setdefault(sample.name, sample.origin)
        if other != sample.origin:
            why = (
                "differ only in their suffix"
                if Path(other).with_suffix("") == Path(sample.origin).with_suffix("")
                else (f"would both be called '{sample.name}', since folders are joined by two underscores")
            )
            raise DataError(f"{sample.origin} and {other} {why}; rename one of them")
