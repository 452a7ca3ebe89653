"""What people decided about each picture, saved at once: tags, mask, and all earlier states.

DIR/state/NAME.json is a picture's state; DIR/masks/NAME.png its mask, once there is one; DIR/undo/NAME/NUMBER.json and .png are
the earlier states. A change first copies the state it replaces, then replaces it, so that a crash between the two loses nothing.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mupvss.data.masks import read_label_image, write_palette_png
from mupvss.files import atomic_path, read_json, write_json

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


class Records:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str, tags: tuple[str, ...]) -> State:
        """The picture's state; open, with the given tags, if nobody has decided anything yet."""
        path = self._state(name)
        if not path.is_file():
            return State("open", tags, False)
        found = read_json(path)
        return State(found["status"], tuple(found["tags"]), bool(found["painted"]))

    def mask(self, name: str) -> np.ndarray | None:
        """(H, W) uint8 class ids, if there is a mask."""
        path = self._mask(name)
        return read_label_image(path) if path.is_file() else None

    def write(self, name: str, before: State, state: State, mask: np.ndarray | None = None) -> None:
        """Saves the new state. Its mask is `mask`, else the present one if the state is painted, else none."""
        self._remember(name, before)
        if mask is not None:
            write_palette_png(self._mask(name), mask)
        write_json(self._state(name), asdict(state))
        if not state.painted:
            self._mask(name).unlink(missing_ok=True)

    def undo(self, name: str, tags: tuple[str, ...]) -> State:
        """Restores the previous state and returns it; returns the present state if there is none."""
        steps = self._steps(name)
        if not steps:
            return self.read(name, tags)
        last = steps[-1]
        found = read_json(last)
        kept = last.with_suffix(".png")
        if kept.is_file():
            with atomic_path(self._mask(name)) as temporary:
                shutil.copyfile(kept, temporary)
        write_json(self._state(name), found)
        if not kept.is_file():
            self._mask(name).unlink(missing_ok=True)
        last.unlink()
        kept.unlink(missing_ok=True)
        return self.read(name, tags)

    def can_undo(self, name: str) -> bool:
        return bool(self._steps(name))

    def _remember(self, name: str, before: State) -> None:
        steps = self._steps(name)
        number = int(steps[-1].stem) + 1 if steps else 1
        path = self.folder / "undo" / name / f"{number:06d}.json"
        if self._mask(name).is_file():
            with atomic_path(path.with_suffix(".png")) as temporary:
                shutil.copyfile(self._mask(name), temporary)
        write_json(path, asdict(before))
        for old in steps[: max(0, len(steps) + 1 - MAX_UNDO)]:
            old.unlink()
            old.with_suffix(".png").unlink(missing_ok=True)

    def _steps(self, name: str) -> list[Path]:
        return sorted((self.folder / "undo" / name).glob("[0-9]*.json"))

    def _state(self, name: str) -> Path:
        return self.folder / "state" / f"{name}.json"

    def _mask(self, name: str) -> Path:
        return self.folder / "masks" / f"{name}.png"
