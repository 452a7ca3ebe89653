"""Decisions made in the studio, saved at once: the tags, mask and earlier states of each picture; and data sets with these
decisions, to train on.

DIR/state/NAME.json is a picture's state; DIR/masks/NAME.png its mask, once there is one; DIR/undo/NAME/NUMBER.json and .png are
the earlier states. A change first copies the state it replaces, then replaces it, so that a crash between the two loses nothing.

A state records the content of its picture, so another picture with the same name gets its own state.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mupvss.data.masks import read_label_image, write_palette_png
from mupvss.data.sample import Dataset, LazySamples, Sample
from mupvss.files import atomic_path, file_state, read_json, write_json

Status = Literal["open", "accepted", "rejected"]
STATUSES: tuple[Status, ...] = ("open", "accepted", "rejected")
MAX_UNDO = 100
"""Number of earlier states kept per picture."""


@dataclass(frozen=True)
class State:
    status: Status
    tags: tuple[str, ...]
    painted: bool
    """Whether a person accepted or painted the mask; otherwise it is computed from the maps."""


Content = list[Any] | None
"""A picture's `file_state`; None if it is not a file, and only its name identifies it."""


class Decisions:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def key(self, name: str, content: Content) -> str:
        """The name under which decisions on this picture are kept: its own name, unless another picture uses it."""
        path = self._state(name)
        owner = read_json(path).get("picture") if path.is_file() else None
        if owner is None or content is None or owner == content:
            return name
        return f"{name}~{content[0]}-{content[1]:08x}"

    def read(self, key: str, tags: tuple[str, ...]) -> State:
        """The picture's state; open, with the given tags, if nobody has decided anything yet."""
        path = self._state(key)
        if not path.is_file():
            return State("open", tags, False)
        found = read_json(path)
        return State(found["status"], tuple(found["tags"]), bool(found["painted"]))

    def mask_path(self, key: str) -> Path | None:
        path = self._mask(key)
        return path if path.is_file() else None

    def mask(self, key: str) -> np.ndarray | None:
        """(H, W) uint8 class ids, if there is a mask."""
        path = self.mask_path(key)
        return None if path is None else read_label_image(path)

    def write(self, key: str, before: State, state: State, mask: np.ndarray | None = None, content: Content = None) -> None:
        """Saves the new state. Its mask is `mask`, else the present one if the state is painted, else none."""
        self._remember(key, before)
        if mask is not None:
            write_palette_png(self._mask(key), mask)
        write_json(self._state(key), {**asdict(state), "picture": content})
        if not state.painted:
            self._mask(key).unlink(missing_ok=True)

    def undo(self, key: str, tags: tuple[str, ...]) -> State:
        """Restores the previous state and returns it; returns the present state if there is none."""
        steps = self._steps(key)
        if not steps:
            return self.read(key, tags)
        last = steps[-1]
        found = {**read_json(last), "picture": read_json(self._state(key)).get("picture")}
        kept = last.with_suffix(".png")
        if kept.is_file():
            with atomic_path(self._mask(key)) as temporary:
                shutil.copyfile(kept, temporary)
        write_json(self._state(key), found)
        if not kept.is_file():
            self._mask(key).unlink(missing_ok=True)
        last.unlink()
        kept.unlink(missing_ok=True)
        return self.read(key, tags)

    def can_undo(self, key: str) -> bool:
        return bool(self._steps(key))

    def _remember(self, key: str, before: State) -> None:
        steps = self._steps(key)
        number = int(steps[-1].stem) + 1 if steps else 1
        path = self.folder / "undo" / key / f"{number:06d}.json"
        if self._mask(key).is_file():
            with atomic_path(path.with_suffix(".png")) as temporary:
                shutil.copyfile(self._mask(key), temporary)
        write_json(path, asdict(before))
        for old in steps[: max(0, len(steps) + 1 - MAX_UNDO)]:
            old.unlink()
            old.with_suffix(".png").unlink(missing_ok=True)

    def _steps(self, key: str) -> list[Path]:
        return sorted((self.folder / "undo" / key).glob("[0-9]*.json"))

    def _state(self, key: str) -> Path:
        return self.folder / "state" / f"{key}.json"

    def _mask(self, key: str) -> Path:
        return self.folder / "masks" / f"{key}.png"


Decided = tuple[frozenset[str], Path | None, bool]
"""Tags, the file of the mask, and whether the picture was rejected."""


def with_decisions(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with the decisions in a studio's folder: corrected tags, accepted and painted masks as `given_mask`, and
    rejections. The same object if nothing was decided."""
    if not (folder / "state").is_dir():
        return dataset
    decisions = Decisions(folder)
    names = {path.stem for path in (folder / "state").glob("*.json")}
    found = {place: sample.name for place, sample in enumerate(dataset.samples) if sample.name in names}
    changed: dict[int, Decided] = {}
    for place in found:
        sample = dataset.samples[place]
        key = decisions.key(sample.name, file_state(sample.origin))
        state = decisions.read(key, tuple(sample.tags))
        mask = decisions.mask_path(key) if state.painted and state.status != "rejected" else None
        tags = frozenset(state.tags) & frozenset(dataset.classes)
        if mask is not None or tags != sample.tags or state.status == "rejected":
            changed[place] = (tags, mask, state.status == "rejected")
    if not changed:
        return dataset
    make = functools.partial(_decided, dataset.samples, changed)
    return Dataset(dataset.classes, LazySamples(range(len(dataset.samples)), make), (*dataset.notes, _counted(dataset, changed)))


def _decided(samples: Sequence[Sample], changed: dict[int, Decided], place: int) -> Sample:
    sample = samples[place]
    if place not in changed:
        return sample
    tags, mask, rejected = changed[place]
    if mask is None:
        return replace(sample, tags=tags, rejected=rejected)
    given = functools.partial(read_label_image, mask)
    return replace(sample, tags=tags, rejected=rejected, given_mask=given, given_origin=str(mask))


def _counted(dataset: Dataset, changed: dict[int, Decided]) -> str:
    masks = sum(mask is not None for _, mask, _ in changed.values())
    tags = sum(entry[0] != dataset.samples[place].tags for place, entry in changed.items())
    rejected = sum(entry[2] for entry in changed.values())
    return f"decided in the studio: {masks} masks, other tags for {tags} pictures, {rejected} pictures rejected"
