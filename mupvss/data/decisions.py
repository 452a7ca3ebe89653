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

from mupvss.data.masks import IGNORE, read_label_image, write_palette_png
from mupvss.data.sample import Dataset, LazySamples, Sample
from mupvss.files import atomic_path, file_state, read_json, state_mark, write_json

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
    """The decisions in a folder, for a network or data set with these classes."""

    def __init__(self, folder: Path, classes: Sequence[str] = ()) -> None:
        """classes: names behind the ids 1, 2, ... of masks. They are kept with every decision, so that a mask still means the
        same when classes come or go."""
        self.folder, self.classes = folder, tuple(classes)

    def key(self, name: str, content: Content) -> str:
        """The name under which decisions on this picture are kept: its own name, unless another picture uses it."""
        owner = (self._load(name) or {}).get("picture")
        if owner is None or content is None or owner == content:
            return name
        return f"{name}~{state_mark(content)}"

    def read(self, key: str, tags: tuple[str, ...]) -> State:
        """The picture's state; open, with the given tags, if nobody has decided anything yet."""
        found = self._load(key)
        return State("open", tags, False) if found is None else _as_state(found)

    def _load(self, key: str) -> dict[str, Any] | None:
        """The content of a state's file; None if there is none, or a damaged one."""
        try:
            found = read_json(self._state(key))
            _as_state(found)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return dict(found)

    def mask_path(self, key: str) -> Path | None:
        path = self._mask(key)
        return path if path.is_file() else None

    def mask(self, key: str) -> np.ndarray | None:
        """(H, W) uint8 class ids, if there is a mask."""
        path = self.mask_path(key)
        return None if path is None else read_remapped(path, self.remap(key))

    def remap(self, key: str) -> bytes | None:
        """A table of 256 ids from the classes that the mask was made for to those of today, 255 for a class that is gone; None if
        nothing has changed."""
        before = (self._load(key) or {}).get("classes")
        if not before or not self.classes or tuple(before) == self.classes:
            return None
        table = np.full(256, IGNORE, np.uint8)
        table[0] = 0
        for class_id, name in enumerate(before, 1):
            if name in self.classes:
                table[class_id] = self.classes.index(name) + 1
        return table.tobytes()

    def write(self, key: str, before: State, state: State, mask: np.ndarray | None = None, content: Content = None) -> None:
        """Saves the new state. Its mask is `mask`, else the present one if the state is painted, else none."""
        self._remember(key, before)
        if mask is not None:
            write_palette_png(self._mask(key), mask)
        write_json(self._state(key), {**asdict(state), "picture": content, "classes": list(self.classes)})
        if not state.painted:
            self._mask(key).unlink(missing_ok=True)

    def undo(self, key: str, tags: tuple[str, ...]) -> State:
        """Restores the previous state and returns it; returns the present state if there is none."""
        steps = self._steps(key)
        if not steps:
            return self.read(key, tags)
        last = steps[-1]
        now = self._load(key) or {}
        found = {**read_json(last), "picture": now.get("picture"), "classes": now.get("classes", [])}
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


@dataclass(frozen=True)
class Decided:
    """A decision on a picture."""

    tags: frozenset[str]
    mask: Path | None
    table: bytes | None
    """See `Decisions.remap`."""
    rejected: bool


def _as_state(found: Any) -> State:
    if found["status"] not in STATUSES:
        raise ValueError(found["status"])
    return State(found["status"], tuple(map(str, found["tags"])), bool(found["painted"]))


def read_remapped(path: Path, table: bytes | None) -> np.ndarray:
    """A mask with its ids exchanged by a table of 256."""
    labels = read_label_image(path)
    return labels if table is None else np.frombuffer(table, np.uint8)[labels]


def with_decisions(dataset: Dataset, folder: Path) -> Dataset:
    """The data set with the decisions in a studio's folder: corrected tags, accepted and painted masks as `given_mask`, and
    rejections. The same object if nothing was decided."""
    if not (folder / "state").is_dir():
        return dataset
    decisions = Decisions(folder, dataset.classes)
    waiting = {path.stem for path in (folder / "state").glob("*.json")}
    changed: dict[int, Decided] = {}
    for place in [place for place, sample in enumerate(dataset.samples) if sample.name in waiting]:
        sample = dataset.samples[place]
        key = decisions.key(sample.name, file_state(sample.origin))
        if key in waiting:
            waiting.discard(key)
            state = decisions.read(key, tuple(sample.tags))
            mask = decisions.mask_path(key) if state.painted and state.status != "rejected" else None
            tags = frozenset(state.tags) & frozenset(dataset.classes)
            if mask is not None or tags != sample.tags or state.status == "rejected":
                changed[place] = Decided(tags, mask, decisions.remap(key), state.status == "rejected")
    left = [f"decisions in the studio on other pictures or earlier contents, not used: {len(waiting)}"] if waiting else []
    if not changed:
        return Dataset(dataset.classes, dataset.samples, (*dataset.notes, *left)) if left else dataset
    make = functools.partial(_decided, dataset.samples, changed)
    notes = (*dataset.notes, _counted(dataset, changed), *left)
    return Dataset(dataset.classes, LazySamples(range(len(dataset.samples)), make), notes)


def _decided(samples: Sequence[Sample], changed: dict[int, Decided], place: int) -> Sample:
    sample, found = samples[place], changed.get(place)
    if found is None:
        return sample
    if found.mask is None:
        return replace(sample, tags=found.tags, rejected=found.rejected)
    given = functools.partial(read_remapped, found.mask, found.table)
    return replace(sample, tags=found.tags, rejected=found.rejected, given_mask=given, given_origin=str(found.mask))


def _counted(dataset: Dataset, changed: dict[int, Decided]) -> str:
    masks = sum(entry.mask is not None for entry in changed.values())
    tags = sum(entry.tags != dataset.samples[place].tags for place, entry in changed.items())
    rejected = sum(entry.rejected for entry in changed.values())
    return f"decided in the studio: {masks} masks, other tags for {tags} pictures, {rejected} pictures rejected"
