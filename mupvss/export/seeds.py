"""Writes a run's seeds in the files of other projects, so that their programs can finish or score them.

The values are those of the maps, in [0, 1]; each project's program asks for the background threshold or tries several.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mupvss.errors import UserError
from mupvss.files import atomic_path
from mupvss.predict.run import FinishedRun
from mupvss.runtime.log import each
from mupvss.search.multiscale import canvas_size
from mupvss.search.seeds import Seeds
from mupvss.stages.run_folder import Run, pictures_of

CELL = 4
"""Pixels per cell of IRN's small maps."""


def _dictionary(seeds: Seeds) -> dict[int, np.ndarray]:
    """MCTformer and PSA (out_cam): class number from 0 -> map at the picture's size, float32."""
    return {int(i) - 1: own for i, own in zip(seeds.ids, seeds.full(), strict=True)}


def _irn(seeds: Seeds) -> dict[str, Any]:
    """IRN: class numbers from 0, maps at a quarter of the size and at the picture's."""
    full = seeds.full()
    size = canvas_size(seeds.size[1], seeds.size[0], CELL)
    small = torch.zeros(0, *size)
    if len(full):
        small = torch.nn.functional.interpolate(torch.from_numpy(full)[None], size=size, mode="bilinear", align_corners=False)[0]
    return {"keys": torch.from_numpy(seeds.ids.astype(np.int64) - 1), "cam": small, "high_res": full}


LAYOUTS: Mapping[str, Callable[[Seeds], Any]] = {"mctformer": _dictionary, "psa": _dictionary, "irn": _irn}


def export_seeds(folder: Path, out: Path, layout: str, kind: str | None = None) -> int:
    """Writes out/NAME.npy for every picture of the run that has seeds.

    Args:
        folder: Folder of the run.
        out: Folder for the files.
        layout: mctformer, psa or irn.
        kind: Kind of map; None: the one that became masks.

    Returns:
        The number of files.

    Raises:
        UserError: for an unknown layout, or a run without such seeds.
    """
    if layout not in LAYOUTS:
        raise UserError(f"no layout '{layout}'; choose from {', '.join(LAYOUTS)}")
    found = FinishedRun(folder)
    written = 0
    for sample in each("seeds", pictures_of(Run(found.config("seeds"), folder), "seeds").samples):
        seeds = found.seeds(sample.name, kind)
        if seeds is None:
            continue
        with atomic_path(out / f"{sample.name}.npy") as temporary, temporary.open("wb") as stream:
            value = np.empty((), object)
            value[()] = LAYOUTS[layout](seeds)
            np.save(stream, value, allow_pickle=True)  # which only writes
        written += 1
    if not written:
        raise UserError(f"{folder}: has no seeds" + (f" of the kind {kind}" if kind else "") + "; run the stage 'seeds' first")
    return written
