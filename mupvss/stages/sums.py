"""What a stage adds up over its pictures, kept on disk so that a stopped stage goes on where it was."""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mupvss.data.sample import Dataset, Sample
from mupvss.data.walk import MARKER
from mupvss.errors import StoppedError
from mupvss.files import atomic_path
from mupvss.runtime.log import progress_bar
from mupvss.runtime.processes import processes

APART = 30.0
"""Seconds between two saves: what a killed stage does again at most."""
PREFIX = "sums-"


class Sums:
    """Arrays that grow picture by picture, and one row per picture."""

    def __init__(self, folder: Path, **arrays: np.ndarray) -> None:
        """
        Args:
            folder: Of the stage.
            arrays: What is added up, as it is before the first picture. `sums["name"]` is changed in place.
        """
        team = processes()
        self.path = folder / f"{PREFIX}{team.rank}.npz"
        marker = (folder / MARKER).read_bytes() if (folder / MARKER).is_file() else b""
        # The marker says what the work is, and with which masks it is scored.
        self.key = hashlib.sha256(marker + f" {team.count}".encode()).hexdigest()
        self.arrays, self.rows, self.done = arrays, list[np.ndarray](), 0
        self._restore()

    def __getitem__(self, name: str) -> np.ndarray:
        return self.arrays[name]

    def over(self, title: str, dataset: Dataset) -> Iterator[Sample]:
        """This process's pictures that are still to be done, with a progress bar. When the loop asks for the next picture, the
        last one must have been added to the arrays and to `rows`."""
        own, saved = processes().share(dataset.samples), time.monotonic()
        with progress_bar(title, len(own), "pictures", done=self.done) as advance:
            for place in range(self.done, len(own)):
                yield own[place]
                self.done += 1
                if time.monotonic() - saved >= APART:
                    self.save()
                    saved = time.monotonic()
                try:
                    advance(1)
                except StoppedError:
                    self.save()
                    raise

    def save(self) -> None:
        values: dict[str, Any] = {f"sum {name}": array for name, array in self.arrays.items()}
        rows = np.stack(self.rows) if self.rows else np.zeros(0)
        with atomic_path(self.path) as temporary:
            np.savez(temporary, key=np.array(self.key), done=np.array(self.done), rows=rows, **values)

    def _restore(self) -> None:
        try:
            with np.load(self.path, allow_pickle=False) as kept:
                if str(kept["key"]) != self.key:
                    return
                found = {name: kept[f"sum {name}"] for name in self.arrays}
                rows, done = list(kept["rows"]), int(kept["done"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return  # there is none, or it cannot be read: the pictures are done again
        if all(found[name].shape == array.shape for name, array in self.arrays.items()):
            self.arrays, self.rows, self.done = found, rows, done


def remove_sums(folder: Path) -> None:
    for path in folder.glob(f"{PREFIX}*.npz"):
        path.unlink(missing_ok=True)
