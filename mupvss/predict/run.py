"""Read-only access to a run's folder: which networks, settings, maps and masks it holds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from mupvss.config.load import load_config
from mupvss.config.run import RunConfig
from mupvss.data.walk import marker_of
from mupvss.errors import CheckpointError
from mupvss.files import read_json
from mupvss.methods.earlier import MAPS
from mupvss.options import SearchConfig, Section
from mupvss.predict.calibration import Calibration, calibration_of
from mupvss.search.given import GIVEN
from mupvss.search.seeds import Seeds, read_seeds, seed_path

CENTRES, CENTRES_FILE = "centres", "centres.safetensors"
"""Folder and file of the stage `seeds` for the centres of all pictures, where its maps need them."""
CALIBRATION = "calibration.json"
"""File of the stage `val`: by network, how to calibrate its scores, and how reliable they are."""


class FinishedRun:
    """One run's folder. Parts of it may be missing: the run may have been stopped, or only some stages may have been run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def checkpoint(self, stage: str) -> Path:
        """Path of a stage's network, whether or not it exists."""
        return self.folder / stage / "model.safetensors"

    def metrics(self, stage: str) -> dict[str, Any]:
        """The metrics of a finished stage; empty if it is not finished."""
        path = self.folder / stage / "metrics.json"
        return dict(read_json(path)) if path.is_file() else {}

    def config(self, stage: str = "train") -> RunConfig:
        """The config that the stage was made with. CheckpointError if it is missing."""
        path = self.folder / stage / "config.toml"
        if not path.is_file():
            raise CheckpointError(
                f"{self.folder}: not the folder of a run (no {stage}/config.toml); give the folder that 'mupvss run' wrote"
            )
        return load_config(path, trusted=False)

    def is_current(self, stage: str) -> bool:
        """Whether a stage's result was made from what the run has now of the stages below it. Results of earlier versions do not
        say what they were made from, and are taken as they are."""
        made_from = marker_of(self.folder / stage).get("after", {})
        return all(not was or marker_of(self.folder / name).get("fingerprint", was) == was for name, was in made_from.items())

    @property
    def search_settings(self) -> tuple[SearchConfig, Section] | None:
        """The settings of its search, and the method's own part of them; None if nothing was searched."""
        if not (self.folder / "seeds" / "config.toml").is_file():
            return None
        config = self.config("seeds")
        return config.search, config.search_options

    @property
    def test_settings(self) -> dict[str, Any]:
        """Scales and CRF that its segmentation network was tested with; if it was not tested, those of its training."""
        stage = next((s for s in ("val", "segment") if (self.folder / s / "config.toml").is_file()), None)
        if stage is None:
            return {}
        segment = self.config(stage).segment
        return {"scales": segment.scales, "crf": segment.crf}

    def calibration(self, network: str) -> Calibration | None:
        """Of the scores of a network, `segment` or `train`; None if they were not tested, or if the network has changed."""
        path = self.folder / "val" / CALIBRATION
        tested = self.is_current("val") and (network == "segment" or self.is_current("segment"))
        return calibration_of({"calibration": read_json(path).get(network)}) if tested and path.is_file() else None

    @property
    def centres(self) -> Path | None:
        """The centres of all pictures, which its maps are searched with; None if its maps need none, or if they are of an earlier
        network."""
        return _there(self.folder / "seeds" / CENTRES / CENTRES_FILE) if self.is_current("seeds") else None

    @cached_property
    def maps(self) -> str | None:
        """The kind of map that became masks; None if nothing was searched."""
        found = self.metrics("seeds").get("maps")
        return None if found is None else MAPS.get(found, found)

    @cached_property
    def threshold(self) -> float | None:
        """Map value from which a pixel belongs to an object, chosen without masks for the maps in `seeds`; None if nothing was
        searched."""
        if self.metrics("seeds").get("maps") == GIVEN:
            return None  # chosen for another method's maps, and says nothing about this network's
        found = self.metrics("seeds").get("threshold")
        return None if found is None else float(found)

    def seeds(self, name: str, kind: str | None = None, stage: str = "seeds") -> Seeds | None:
        """The maps of a picture, of the given kind or of the one that became masks; None if they are missing."""
        chosen = kind or self.maps
        if chosen is None:
            return None
        # A run of version 0.1.0 of which no stage was run since still has that version's names.
        names = [chosen, *(old for old, new in MAPS.items() if new == chosen)]
        path = next((found for kind in names if (found := seed_path(self.folder / stage, kind, name)).is_file()), None)
        return None if path is None else read_seeds(path)

    def seed_mask(self, name: str) -> Path | None:
        """The mask at the threshold chosen without masks; None if it is missing."""
        return _there(self.folder / "seeds" / "masks" / f"{name}.png")

    def pseudo_mask(self, name: str) -> Path | None:
        """The mask after affinity and dense CRF, with every pixel labelled; None if it is missing."""
        return _there(self.folder / "masks" / "full" / f"{name}.png")

    def crossfit_mask(self, name: str) -> Path | None:
        """The mask by a network that had not learned it, with every pixel labelled; None if that was not asked for."""
        done = (self.folder / "crossfit" / "metrics.json").is_file()
        return _there(self.folder / "crossfit" / "full" / f"{name}.png") if done else None

    def mask(self, name: str) -> Path | None:
        """The run's mask of a picture, the best that there is of these two."""
        return self.crossfit_mask(name) or self.pseudo_mask(name)

    @property
    def val_masks(self) -> Callable[[str], Path | None] | None:
        """Function from a name to the segmentation network's mask of that picture; None if the network was not tested."""
        if not self.metrics("val").get("pictures"):
            return None
        # In one folder, or for VOC nested as its server requires.
        folders = [path for path in (self.folder / "val").rglob("*") if path.is_dir() and any(path.glob("*.png"))]
        return lambda name: next((found for folder in folders if (found := _there(folder / f"{name}.png"))), None)

    def logs(self) -> dict[str, Path]:
        """The log of every training, by its stage."""
        return {path.parent.name: path for path in sorted(self.folder.glob("*/log.jsonl"))}


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None
