"""Pascal VOC folder layout: JPEGImages, ImageSets/Segmentation, Annotations (XML) or a tag table, and masks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import numpy as np

from mupvss.data.images import read_image
from mupvss.data.masks import read_label_image
from mupvss.data.names import stem
from mupvss.data.sample import Dataset, Sample
from mupvss.data.tags import read_tags
from mupvss.data.tags.exports import read_annotation
from mupvss.errors import DataError
from mupvss.options import VocData

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""VOC's classes, in the order of their ids 1 to 20."""


def load_voc(
    config: VocData, split: str, scored: str | None = None, without: str | None = None, limit: int | None = None
) -> Dataset:
    """The pictures of one split list, except those of the list `without`. They come with every mask that exists, or only with the
    masks of the pictures in the list `scored`."""
    root = config.root
    classes = config.classes or CLASSES
    unknown = [name for name in classes if name not in CLASSES]
    if unknown:
        raise DataError(f"data.classes: VOC has no class {unknown}; it has {', '.join(CLASSES)}")
    lists = _lists(config)

    def is_picture(name: str) -> bool:
        return "/" not in name and (root / "JPEGImages" / f"{name}.jpg").is_file()

    names = read_split(lists / f"{split}.txt", is_picture)
    if without is not None:
        left_out = set(read_split(lists / f"{without}.txt", is_picture))
        names = [name for name in names if name not in left_out]
    names = names[:limit]  # before anything else, since every name costs reading a file
    masked = set(names if scored is None else read_split(lists / f"{scored}.txt", is_picture))
    table = None if config.tags is None else _by_stem(read_tags(config.tags).tags, config.tags)
    ids = remap_table(classes, config.other_classes)
    samples = []
    for name in names:
        image = root / "JPEGImages" / f"{name}.jpg"
        mask = root / config.masks / f"{name}.png"
        if table is None:
            tags = read_annotation(root / "Annotations" / f"{name}.xml")
        elif name in table:
            tags = table[name]
        else:
            raise DataError(f"{config.tags}: no row for picture '{name}' of the split '{split}'; add it, with or without tags")
        _check_known(tags, name, config.tags or root / "Annotations" / f"{name}.xml")
        shown = name in masked and mask.is_file()
        samples.append(
            Sample(
                name,
                str(image),
                tags & frozenset(classes),
                functools.partial(read_image, image),
                functools.partial(_read_mask, mask, ids) if shown else None,
                mask_origin=str(mask) if shown else None,
            )
        )
    return Dataset(tuple(classes), samples)


PACKAGED = Path(__file__).parent / "lists"


def _lists(config: VocData) -> Path:
    """The folder of the split lists."""
    if not config.lists.startswith("package:"):
        return config.root / config.lists
    name = config.lists.removeprefix("package:")
    known = sorted(path.name for path in PACKAGED.iterdir() if path.is_dir())
    if name not in known:
        raise DataError(f"data.lists is '{config.lists}'; of such lists there are {', '.join(f'package:{k}' for k in known)}")
    return PACKAGED / name


def read_split(path: Path, known: Callable[[str], bool] = lambda name: False) -> list[str]:
    """Names listed in a split file, one per line.

    A line may be a name with blanks in it, and may hold paths, as in the lists of PSA and IRN (/JPEGImages/NAME.jpg
    /SegmentationClassAug/NAME.png). The name is the first form that `known` accepts of the line and its first word, with or
    without folder and suffix; otherwise the first word without folder and suffix.
    """
    if not path.is_file():
        found = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise DataError(f"{path}: no such split list; found {found or 'none'} (data.root must hold JPEGImages/ and ImageSets/)")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    names = [_listed_name(line.strip(), known) for line in text.splitlines() if line.strip()]
    if not names:
        raise DataError(f"{path}: the split list is empty; expected one picture name per line")
    return names


def _listed_name(line: str, known: Callable[[str], bool]) -> str:
    word = line.split()[0]
    paths = [text.replace("\\", "/") for text in (line, word)]
    forms = [line, word, *(stem(path) for path in paths), *(stem(path.rpartition("/")[2]) for path in paths)]
    return next((form for form in forms if known(form)), stem(word.replace("\\", "/").rpartition("/")[2]))


def remap_table(classes: tuple[str, ...], other: str) -> np.ndarray:
    """(256,) uint8: VOC id -> id in `classes` (1...), others background or 255; void stays 255."""
    table = np.full(256, 255, np.uint8)
    table[0] = 0
    for voc_id, name in enumerate(CLASSES, 1):
        table[voc_id] = classes.index(name) + 1 if name in classes else (0 if other == "background" else 255)
    return table


def _read_mask(path: Path, table: np.ndarray) -> np.ndarray:
    return table[read_label_image(path)]


def _by_stem(table: dict[str, frozenset[str]], path: Path) -> dict[str, frozenset[str]]:
    stems = {stem(PurePosixPath(name.replace("\\", "/")).name): tags for name, tags in table.items()}
    if len(stems) != len(table):
        raise DataError(f"{path}: two rows name the same picture under different suffixes")
    return stems


def _check_known(tags: frozenset[str], name: str, origin: Path) -> None:
    unknown = sorted(tags - frozenset(CLASSES))
    if unknown:
        raise DataError(f"{origin}: picture '{name}' has the unknown tag {unknown[0]!r}; VOC's classes are {', '.join(CLASSES)}")
