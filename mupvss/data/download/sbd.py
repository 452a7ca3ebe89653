"""Converts SBD's MATLAB files to masks, and writes VOC's training list extended by them (`train_aug`, 10,582 pictures)."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from mupvss.data.masks import read_label_image, write_palette_png
from mupvss.data.voc import CLASSES, read_split
from mupvss.errors import DataError, MissingExtraError
from mupvss.files import write_text
from mupvss.runtime.log import console, progress_bar

MASKS = "SegmentationClassAug"
LIST = "train_aug"


def add_sbd(sbd: Path, voc: Path) -> int:
    """-> VOC/SegmentationClassAug/NAME.png and VOC/ImageSets/Segmentation/train_aug.txt; the number of pictures in the list.

    sbd: the folder that holds cls/, train.txt and val.txt; voc: the one that holds JPEGImages. VOC's own masks take precedence
    over SBD's, and no picture of VOC's val is in the list. Masks that already exist are kept.
    """
    if not (voc / "SegmentationClass").is_dir():
        raise DataError(f"{voc}: no SegmentationClass there; download voc first, into the same folder")
    lists = voc / "ImageSets" / "Segmentation"
    own = {name: set(read_split(lists / f"{name}.txt")) for name in ("train", "val")}
    listed = {name for split in ("train", "val") for name in read_split(sbd / f"{split}.txt")}
    masked = sorted(listed | own["train"] | own["val"])
    another = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    with progress_bar("masks", len(masked), "pictures") as advance, another as apart:
        for name in masked:
            target = voc / MASKS / f"{name}.png"
            if not target.is_file():
                theirs = voc / "SegmentationClass" / f"{name}.png"
                mat = sbd / "cls" / f"{name}.mat"
                write_palette_png(target, read_label_image(theirs) if theirs.is_file() else _read_apart(mat, apart))
            advance(1)
    chosen = sorted((listed | own["train"]) - own["val"])
    write_text(lists / f"{LIST}.txt", "".join(f"{name}\n" for name in chosen))
    console.print(f"{LIST}: {len(chosen)} pictures, masks in {voc / MASKS}", highlight=False, soft_wrap=True)
    return len(chosen)


def _read_apart(path: Path, apart: ProcessPoolExecutor) -> np.ndarray:
    """Reads in another process, since a damaged file can crash the MATLAB reader."""
    try:
        return apart.submit(read_mat, path).result()
    except BrokenProcessPool:
        raise DataError(f"{path}: so damaged that its reader crashed; delete the folder SBD and download sbd again") from None


def read_mat(path: Path) -> np.ndarray:
    """Class ids (H, W) uint8 of one of SBD's GTcls files."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingExtraError("SBD's MATLAB files need the extra: pip install 'mupvss[datasets]'") from None
    try:
        with path.open("rb") as stream:
            mask = np.asarray(loadmat(stream, variable_names=["GTcls"])["GTcls"][0, 0]["Segmentation"])
    except FileNotFoundError:
        raise DataError(f"{path}: no such mask; delete the folder SBD and download sbd again") from None
    except Exception as error:  # the reader may raise any error for a damaged file
        raise DataError(f"{path}: not one of SBD's MATLAB files ({type(error).__name__}: {error})") from None
    if mask.ndim != 2 or mask.dtype.kind not in "ui" or mask.size == 0 or mask.max() > len(CLASSES):
        raise DataError(f"{path}: expected a mask (H, W) of VOC's class ids, found {mask.dtype} {mask.shape}")
    return mask.astype(np.uint8)
