"""The user's own pictures: one folder per tag, or a table of pictures and tags. A picture without a tag is a valid negative."""

from __future__ import annotations

import functools
from pathlib import Path

from mupvss.data.images import SUFFIXES, read_image
from mupvss.data.masks import read_label_image
from mupvss.data.sample import Dataset, Sample
from mupvss.data.tags import read_tags
from mupvss.errors import DataError
from mupvss.options import FolderData

NEGATIVE_FOLDERS = frozenset({"_none", "_background", "none"})
"""With one folder per tag, pictures in folders of these names have no tag."""


def load_folder(config: FolderData, split: str) -> Dataset:
    """All pictures under data.root, or of the table data.tags, for training and seeds alike. val: those of data.val_tags, or
    without it those that have a mask. Masks are palette PNGs in data.masks, found by the picture's relative path."""
    root = config.root
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; set data.root to the folder of your pictures")
    masks = root / config.masks  # an absolute data.masks is used as it is
    tags = _tags_from_table(root, config.tags) if config.tags else _tags_from_folders(root, masks)
    found = sorted({tag for entry in tags.values() for tag in entry})
    classes = config.classes or tuple(found)
    if not set(classes) & set(found):
        raise DataError(
            f"{config.tags or root}: no picture has any of data.classes ({', '.join(classes) or 'none'}); "
            f"the tags found are {', '.join(found) or 'none'}"
        )
    if split == "val" and config.val_tags is not None:
        tags = _tags_from_table(root, config.val_tags)
    samples = []
    for path, entry in sorted(tags.items()):
        name = "__".join(path.relative_to(root).with_suffix("").parts)
        mask = masks / path.relative_to(root).with_suffix(".png")
        samples.append(
            Sample(
                name,
                str(path),
                entry & frozenset(classes),
                functools.partial(read_image, path),
                functools.partial(read_label_image, mask) if mask.is_file() else None,
                mask_origin=str(mask) if mask.is_file() else None,
            )
        )
    _check_names(samples)
    if split == "val" and config.val_tags is None:
        samples = [sample for sample in samples if sample.open_mask is not None]
    return Dataset(tuple(classes), samples)


def _tags_from_folders(root: Path, masks: Path) -> dict[Path, frozenset[str]]:
    tags = {
        path: frozenset() if folder.name in NEGATIVE_FOLDERS else frozenset({folder.name})
        for folder in sorted(p for p in root.iterdir() if p.is_dir() and p != masks and not p.name.startswith("."))
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
    }
    if not tags:
        raise DataError(f"{root}: no picture in a folder per tag (root/cat/1.jpg); make such folders, or give data.tags")
    return tags


def _tags_from_table(root: Path, table: Path) -> dict[Path, frozenset[str]]:
    tags = {}
    for written, entry in read_tags(table).items():
        # The table may have been written on Windows.
        name = written if "\\" not in written or (root / written).is_file() else written.replace("\\", "/")
        path = (root / name).resolve()
        if not path.is_relative_to(root.resolve()):
            raise DataError(f"{table}: picture '{name}' lies outside {root}; move it there or set data.root")
        if not path.is_file():
            raise DataError(f"{table}: picture '{name}' is not in {root}; check the name and data.root")
        tags[root / name] = entry
    return tags


def _check_names(samples: list[Sample]) -> None:
    seen: dict[str, str] = {}
    for sample in samples:
        other = seen.setdefault(sample.name, sample.origin)
        if other != sample.origin:
            raise DataError(f"{sample.origin} and {other} differ only in their suffix; rename one of them")
