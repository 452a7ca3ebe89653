"""Decodes every picture and mask once before training, so that a bad file is not found hours later."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mupvss.data.images import REMARKS, check_image, read_image
from mupvss.data.masks import highest_id
from mupvss.data.sample import Dataset, LazySamples, Sample
from mupvss.errors import DataError
from mupvss.files import file_state, read_json, write_json
from mupvss.runtime.device import own_cores
from mupvss.runtime.log import progress_bar

SHOWN = 20
"""Largest number of bad files that are listed."""
REMEMBERED = 3
"""Number of values per picture; earlier versions kept two, and those pictures are decoded again."""
EVERY = 20_000
"""Number of pictures between two saves of the results."""


def readable(dataset: Dataset, unreadable: Literal["stop", "skip"], memory: Path) -> Dataset:
    """The data set with only those pictures and masks that can be read.

    Args:
        dataset: Only pictures that are files are checked; drawn scenes are always readable.
        unreadable: stop: DataError that lists the bad files. skip: bad pictures are left out, and bad masks are not used.
        memory: A JSON file that keeps the results by content, so that every file is decoded only once.

    Returns:
        The same data set, or one without the bad files and with a note on them.
    """
    if not len(dataset.samples) or not is_file(dataset.samples[0]):
        return dataset
    known = _read(memory)
    found = _check_all(dataset, known, memory)
    bad = {place: state.fault for place, state in enumerate(found) if state.fault is not None}
    masks = [state for place, state in enumerate(found) if state.has_class is not None and dataset.samples[place].tags]
    if masks and not any(state.has_class for state in masks):
        raise DataError(
            f"none of the {len(masks)} true masks of tagged pictures has a pixel of any class. Are these masks of 0 and 255? "
            "Class ids are expected: 0 for the background, 1 for the first class, 255 for what is not scored"
        )
    remarks = tuple(_remarks(dataset, found))
    if not bad:
        return replace(dataset, notes=(*dataset.notes, *remarks))
    faults = list(bad.values())
    if unreadable == "stop":
        help_ = 'correct or remove such files, or set data.unreadable = "skip" to leave them out'
        if len(bad) == 1:
            raise DataError(f"{faults[0][1]}; {help_}")
        more = [f"and {len(bad) - SHOWN} more"] if len(bad) > SHOWN else []
        listed = "\n  ".join([*(text for _, text in faults[:SHOWN]), *more])
        raise DataError(f"{len(bad)} of {len(found)} pictures cannot be used; {help_}:\n  {listed}")
    notes = []
    for what, text in (("picture", "pictures that cannot be read"), ("mask", "masks that cannot be used")):
        these = [why for kind, why in faults if kind == what]
        if these:
            notes.append(f"{text}, left out: {len(these)} ({these[0]})")
    return Dataset(dataset.classes, _without(dataset.samples, bad), (*dataset.notes, *remarks, *notes))


def _remarks(dataset: Dataset, found: Sequence[State]) -> Iterator[str]:
    """Sentences on pictures that can be read, but may not be what they seem."""
    for key, text in REMARKS.items():
        places = [place for place, state in enumerate(found) if key in state.remarks]
        if places:
            yield f"{text}: {len(places)} ({dataset.samples[places[0]].origin}{', ...' if len(places) > 1 else ''})"


Fault = tuple[str, str]
"""'picture' or 'mask', and what is wrong with it."""


def _without(samples: Sequence[Sample], bad: dict[int, Fault]) -> Sequence[Sample]:
    left = [place for place in range(len(samples)) if bad.get(place, ("",))[0] != "picture"]
    unmasked = {place for place, fault in bad.items() if fault[0] == "mask"}
    if isinstance(samples, LazySamples):
        return LazySamples(range(len(left)), functools.partial(_made, samples, left, unmasked))
    return [_made(samples, left, unmasked, number) for number in range(len(left))]


def _made(samples: Sequence[Sample], left: list[int], unmasked: set[int], number: int) -> Sample:
    sample = samples[left[number]]
    return replace(sample, open_mask=None, mask_origin=None, mask_key=None) if left[number] in unmasked else sample


@dataclass(frozen=True)
class State:
    """What was found when a picture and its mask were decoded."""

    fault: Fault | None = None
    has_class: bool | None = None
    """Whether its mask has a pixel of a class; None without a mask."""
    remarks: tuple[str, ...] = ()
    """As `Checked.remarks`."""

    def stored(self) -> list[Any]:
        return [self.fault, self.has_class, self.remarks]

    @classmethod
    def restored(cls, value: Any) -> State:
        fault, has_class, remarks = value
        return cls(tuple(fault) if fault else None, has_class, tuple(remarks))


def _check_all(dataset: Dataset, known: dict[str, Any], memory: Path) -> list[State]:
    """The state of each picture. Several are decoded at a time, since Pillow releases the interpreter's lock."""
    found = [State()] * len(dataset.samples)
    waiting: list[int] = []
    for place, sample in enumerate(dataset.samples):
        if is_file(sample):
            key = _key(dataset, sample)
            value = known.get(key or "", ())
            if len(value) == REMEMBERED:
                found[place] = State.restored(value)
            else:
                waiting.append(place)
    if not waiting:
        return found
    check = functools.partial(_check_one, dataset)
    with progress_bar("check", len(waiting), "pictures", brief=True) as advance, ThreadPoolExecutor(min(8, own_cores())) as pool:
        for number, (place, key, state) in enumerate(pool.map(check, waiting), 1):
            found[place] = state
            if key is not None:
                known[key] = state.stored()
            advance(1)
            if number % EVERY == 0:
                write_json(memory, known)
    write_json(memory, known)
    return found


def is_file(sample: Sample) -> bool:
    return isinstance(sample.open_image, functools.partial) and sample.open_image.func is read_image


def _key(dataset: Dataset, sample: Sample) -> str | None:
    """Identifies a picture and its mask by path and content, and what the mask is checked against; None if the picture is
    missing."""
    own = file_state(sample.origin)
    if own is None:
        return None
    mask = _mask_file(sample)
    if mask is None:
        return json.dumps([sample.origin, own, None])
    key = [file_state(sample.mask_key)] if sample.mask_key else []
    return json.dumps([sample.origin, own, file_state(mask), dataset.classes, *key])


def _mask_file(sample: Sample) -> str | None:
    """The mask's own file; None if there is none, or if one file holds the masks of all pictures."""
    return sample.mask_origin if sample.mask_origin and sample.mask_origin.lower().endswith(".png") else None


def _check_one(dataset: Dataset, place: int) -> tuple[int, str | None, State]:
    sample = dataset.samples[place]
    key = _key(dataset, sample)
    try:
        checked = check_image(Path(sample.origin))
    except DataError as error:
        return place, key, State(("picture", str(error)))
    origin = _mask_file(sample)
    if origin is None or sample.open_mask is None:
        return place, key, State(remarks=checked.remarks)
    try:
        mask = sample.open_mask()
    except DataError as error:
        return place, key, State(("mask", str(error)))
    fault = mask_fault(mask, checked.size, len(dataset.classes), origin)
    if fault is not None:
        return place, key, State(("mask", fault))
    return place, key, State(None, highest_id(mask) > 0, checked.remarks)


def mask_fault(mask: np.ndarray, size: tuple[int, int], classes: int, origin: str) -> str | None:
    """Why a mask does not fit its picture of (width, height) and the number of classes; None if it does."""
    if mask.shape != size[::-1]:
        return f"{origin}: is {mask.shape[1]}x{mask.shape[0]} pixels, its picture {size[0]}x{size[1]}"
    if (highest := highest_id(mask)) > classes:
        return f"{origin}: has class id {highest}, expected at most {classes}"
    return None


def _read(memory: Path) -> dict[str, Any]:
    try:
        found = read_json(memory)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
